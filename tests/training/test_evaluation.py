"""Evaluation counts every target once, whatever the cuts."""

import argparse
import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf

import official_lrm as lrm
from official_lrm.data import EvaluationLanes
from official_lrm.training import Evaluator, ScoredText


@pytest.fixture
def model():
    model = lrm.TransformerXLLanguageModel(
        vocab_size=17,
        spans=(5, 0, 11),
        hidden_size=8,
        num_heads=2,
        head_size=3,
        inner_size=13,
        same_length=True,
    )
    rng = np.random.default_rng(5)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape) * 0.7)
    return model


@pytest.fixture
def tokens():
    return np.random.default_rng(6).integers(0, 17, size=101)


def _evaluate(
    model, tokens, lanes, segment_length, document_starts=None, **kwargs
):
    cut = EvaluationLanes(
        tokens,
        num_lanes=lanes,
        segment_length=segment_length,
        document_starts=document_starts,
    )
    return Evaluator(model).run(cut.dataset(), cut, **kwargs)


def _nats_one_by_one(model, tokens, starts=(0,)):
    """The loss of each target, in a loop of one token after the other."""
    step = tf.function(model)  # A traced one is ten times as fast.
    nats = []
    for index, token in enumerate(tokens[:-1]):
        if index in starts:
            memories = model.initial_memories(1)
        logits, memories = step(tf.constant([[token]], tf.int32), memories)
        logits = np.array(logits, np.float64)[0, 0]
        largest = logits.max()
        log_normalizer = largest + math.log(np.exp(logits - largest).sum())
        nats.append(log_normalizer - logits[tokens[index + 1]])
    return np.array(nats)


def test_equals_a_double_loop_token_by_token(model, tokens):
    """Given one lane, when T is 1, 7, 64 or beyond the text, then the sum is
    that of a loop which feeds one token after the other."""
    nats = _nats_one_by_one(model, tokens).sum()

    for segment_length in (1, 7, 64, 128):
        result = _evaluate(model, tokens, 1, segment_length)
        assert result.tokens == 100
        assert result.nats == pytest.approx(nats, abs=1e-3)


@pytest.mark.parametrize(
    "spans", [(5, 0, 31), (301, 301, 301)], ids=["short", "beyond the text"]
)
def test_a_real_text_costs_the_same_however_it_is_cut(spans):
    """Given same_length, memories shorter or longer than the text, and four
    documents, when T is 1, 7, 64 or 128, then the sum is that of a loop over
    the tokens."""
    text = pathlib.Path(argparse.__file__).read_bytes()[:301]
    starts = [0, 170, 209, 210]
    tokens = np.frombuffer(text, np.uint8)
    model = lrm.TransformerXLLanguageModel(
        vocab_size=256,
        spans=spans,
        hidden_size=16,
        num_heads=2,
        head_size=8,
        inner_size=24,
        same_length=True,
    )
    rng = np.random.default_rng(7)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape) * 0.4)
    nats = _nats_one_by_one(model, tokens, starts).sum()

    for segment_length in (1, 7, 64, 128):
        result = _evaluate(model, tokens, 1, segment_length, np.array(starts))
        assert result.tokens == 300
        assert result.nats == pytest.approx(nats, abs=1e-3)


def test_documents_cost_what_each_costs_and_the_target_between(model, tokens):
    """Given two documents, then their sum is that of each alone and of the
    first token of the second, which is a target of the first."""
    first, second = tokens[:38], tokens[38:]
    model = model.with_spans(model.spans, same_length=False)

    both = _evaluate(model, tokens, 1, 7, np.array([0, 38]))
    joined = _evaluate(model, tokens[:39], 1, 7)
    alone = [_evaluate(model, part, 1, 7) for part in (first, second)]

    between = joined.nats - alone[0].nats
    logits, _ = model(first[None, 35:], _memories_after(model, first[:35]))
    logits = np.array(logits, np.float64)[0, -1]
    assert between == pytest.approx(
        np.log(np.exp(logits).sum()) - logits[second[0]], abs=1e-5
    )
    assert both.tokens == sum(part.tokens for part in alone) + 1 == 100
    assert both.nats == pytest.approx(
        sum(part.nats for part in alone) + between, abs=1e-5
    )
    assert abs(both.nats - _evaluate(model, tokens, 1, 7).nats) > 1e-3


def _memories_after(model, tokens):
    # In segments of 7, as the evaluation reads them.
    memories = model.initial_memories(1)
    for start in range(0, len(tokens), 7):
        _, memories = model(tokens[None, start : start + 7], memories)
    return memories


@pytest.mark.parametrize("segment_length", [4, 64])
def test_loss_by_position(model, tokens, segment_length):
    """Given two lanes and three documents, then each bucket holds the sum of
    the targets whose input stands so far from the lane's or document's
    beginning."""
    # Lane 1 begins at 50.
    starts = [0, 9, 50, 83]
    nats = _nats_one_by_one(model, tokens, starts)
    bounds = np.array([*starts, 100])
    position = np.concatenate([np.arange(n) for n in np.diff(bounds)])

    result = _evaluate(model, tokens, 2, segment_length, np.array([0, 9, 83]))

    rows = result.positions
    assert [(row["first"], row["last"]) for row in rows] == [
        (0, 0),
        (1, 1),
        (2, 3),
        (4, 7),
        (8, 15),
        (16, 31),
        (32, 63),
    ]
    for row in rows:
        inside = (position >= row["first"]) & (position <= row["last"])
        assert row["tokens"] == inside.sum()
        assert row["nats"] == pytest.approx(nats[inside].sum(), abs=1e-4)
    assert sum(row["tokens"] for row in rows) == result.tokens
    assert sum(row["nats"] for row in rows) == pytest.approx(result.nats)


def test_lanes_cover_every_target_once(model, tokens):
    for lanes in (1, 2, 3, 7):
        result = _evaluate(model, tokens, lanes, 5)
        assert result.tokens == 100
        assert result.lanes == lanes


def test_figures_follow_from_the_sum(model, tokens):
    result = _evaluate(model, tokens, 2, 5)

    assert result.nats_per_token == result.nats / 100
    assert result.bits_per_token == pytest.approx(
        result.nats / 100 / math.log(2)
    )
    assert result.perplexity == pytest.approx(math.exp(result.nats / 100))
    for part in ("T=5", "2 lane", "100 targets", "cold", "5, 0, 11"):
        assert part in result.protocol
    assert "same-length" in result.protocol


def test_max_steps_and_progress(model, tokens):
    seen = []

    result = _evaluate(
        model,
        tokens,
        2,
        5,
        max_steps=3,
        progress=lambda step, result: seen.append((step, result.tokens)),
    )

    assert seen == [(1, 10), (2, 20), (3, 30)]
    assert result.tokens == 30
    assert result.is_subset
    assert "30 targets (a subset of the 100 of the text)" in result.protocol


def test_what_the_text_is_goes_into_the_result(model, tokens):
    text = ScoredText("word", "test", 100, num_tokens=100, num_bytes=400)
    model = model.with_spans(model.spans, clamp_length=3, attend_to_empty=True)

    result = _evaluate(model, tokens, 2, 5, text=text)

    assert result.figure == f"{result.perplexity:.3f} perplexity"
    assert result.bits_per_byte == pytest.approx(result.bits_per_token / 4)
    assert not result.is_subset
    assert (result.clamp_length, result.attend_to_empty) == (3, True)
    assert result.is_long == (False, False, True)
    for part in (
        "100 targets (all of the test split)",
        "clamp 3",
        "empty slots attended to",
    ):
        assert part in result.protocol
    part = _evaluate(model, tokens, 2, 5, text=text, max_steps=3)
    assert part.bits_per_byte is None


def test_weights_that_change_between_two_runs_count(model, tokens):
    # Given an evaluator that has run,
    cut = EvaluationLanes(tokens, num_lanes=2, segment_length=9)
    evaluator = Evaluator(model)
    before = evaluator.run(cut.dataset(), cut).nats
    # when kernels of positions change, which it projects once a run,
    for block in model.backbone.blocks:
        kernel = block.attention.position_kernel
        kernel.assign(-2 * kernel)
    after = evaluator.run(cut.dataset(), cut).nats
    # then the next run is of the new weights.
    assert after == pytest.approx(_evaluate(model, tokens, 2, 9).nats, rel=1e-9)
    assert abs(after - before) > 1e-4 * before
