"""Tests of `predict_top_k`: the likeliest tokens instead of all logits."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.serving import ServingModule, signatures


@pytest.fixture
def call(call_export, short):
    """Calls a signature of `short`."""
    return functools.partial(call_export, short)


def trace(model):
    """`predict_top_k` of a model in the process."""
    function = ServingModule(model).signatures(["predict_top_k"])
    return function["predict_top_k"]


def log_softmax(logits):
    logits = np.array(logits, "float64")
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def assert_likeliest(outputs, log_probs, count):
    """`outputs` are the `count` greatest of `log_probs` [B, T, V]."""
    tokens = np.array(outputs["top_tokens"])
    top_log_probs = np.array(outputs["top_log_probs"])
    assert tokens.dtype == "int32" and top_log_probs.dtype == "float32"
    assert tokens.shape == (*log_probs.shape[:2], count)
    order = np.argsort(-log_probs, axis=-1)[..., :count]
    # Not the order itself: of two that are as likely either may be first.
    expected = np.take_along_axis(log_probs, order, axis=-1)
    np.testing.assert_allclose(top_log_probs, expected, atol=1e-5)
    theirs = np.take_along_axis(log_probs, tokens, axis=-1)
    np.testing.assert_allclose(top_log_probs, theirs, atol=1e-5)
    assert np.all(np.diff(np.sort(tokens, axis=-1), axis=-1) > 0)
    assert np.all(np.diff(top_log_probs, axis=-1) <= 0)


class TestItIsPredict:
    def test_segment_by_segment(
        self, short, call, make_tokens, in_the_middle, assert_memories_equal
    ):
        # Given lanes at different positions,
        memories = in_the_middle(short.model)
        for seed, length in enumerate((7, 1, 13)):
            # when a request is made of both,
            inputs = {"tokens": make_tokens(3, length, seed), **memories}
            outputs = call("predict_top_k", inputs)
            expected = call("predict", inputs)
            # then one has the 20 greatest of the other's 23, and the rest.
            assert_likeliest(outputs, log_softmax(expected.pop("logits")), 20)
            del outputs["top_tokens"], outputs["top_log_probs"]
            assert_memories_equal(outputs, expected, atol=1e-5)
            memories = outputs

    def test_no_lanes_and_no_tokens(self, short, call):
        for lanes, length in ((0, 5), (3, 0)):
            memories = short.model.initial_memories(lanes)
            tokens = np.zeros([lanes, length], "int32")
            outputs = call("predict_top_k", {"tokens": tokens, **memories})
            assert outputs["top_tokens"].shape == (lanes, length, 20)
            assert outputs["top_log_probs"].shape == (lanes, length, 20)
            assert outputs["memory_00"].shape == (lanes, 5, 10)

    def test_in_pieces(
        self, short, make_tokens, monkeypatch, assert_memories_equal
    ):
        # Given room for the logits of 5 of 13 tokens,
        monkeypatch.setattr(signatures, "_TOP_PIECE", 5 * 23)
        tokens = make_tokens(1, 13)
        outputs = dict(
            trace(short.model)(
                tokens=tf.constant(tokens), **short.model.initial_memories(1)
            )
        )
        logits, memories = short.model(tokens)
        assert_likeliest(outputs, log_softmax(logits), 20)
        del outputs["top_tokens"], outputs["top_log_probs"]
        assert_memories_equal(outputs, memories, atol=1e-5)


class TestVocabularies:
    def test_of_cutoffs(self, make_model, make_tokens, assert_memories_equal):
        # Given a model whose tokens compete in clusters,
        model = make_model(
            (13, 0), cutoffs=(5, 11), div_value=2, tie_embeddings=False
        )
        top_k = trace(model)
        memories = expected = model.initial_memories(3)
        for seed, length in enumerate((7, 1, 13)):
            tokens = make_tokens(3, length, seed)
            outputs = dict(top_k(tokens=tf.constant(tokens), **memories))
            log_probs, expected = model(tokens, expected)
            # then its log-probabilities are what is returned, as they are.
            log_probs = np.array(log_probs, "float64")
            np.testing.assert_allclose(
                np.exp(log_probs).sum(axis=-1), 1, atol=1e-5
            )
            assert_likeliest(outputs, log_probs, 20)
            del outputs["top_tokens"], outputs["top_log_probs"]
            assert_memories_equal(outputs, expected, atol=1e-5)
            memories = outputs

    def test_of_fewer_than_20(self, make_model, make_tokens):
        model = make_model((5, 0), vocab_size=13)
        tokens = make_tokens(3, 7) % 13
        outputs = trace(model)(
            tokens=tf.constant(tokens), **model.initial_memories(3)
        )
        # All come, in an order.
        logits, _ = model(tokens)
        assert_likeliest(outputs, log_softmax(logits), 13)
        probabilities = np.exp(outputs["top_log_probs"].numpy())
        np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
