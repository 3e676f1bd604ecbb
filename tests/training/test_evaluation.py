"""Evaluation counts every target once, whatever the cuts."""

import math

import numpy as np
import pytest

import official_lrm as lrm
from official_lrm.data import EvaluationLanes
from official_lrm.training import Evaluator


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


def _evaluate(model, tokens, lanes, segment_length, **kwargs):
    cut = EvaluationLanes(
        tokens, num_lanes=lanes, segment_length=segment_length
    )
    return Evaluator(model).run(cut.dataset(), cut, **kwargs)


def test_equals_a_double_loop_token_by_token(model, tokens):
    """Given one lane, when T is 1, 7, 64 or beyond the text, then the sum is
    that of a loop which feeds one token after the other."""
    memories, nats = model.initial_memories(1), 0.0
    for token, target in zip(tokens[:-1], tokens[1:], strict=True):
        logits, memories = model(np.array([[token]]), memories)
        logits = np.array(logits, np.float64)[0, 0]
        log_normalizer = math.log(sum(math.exp(value) for value in logits))
        nats += log_normalizer - logits[target]

    for segment_length in (1, 7, 64, 128):
        result = _evaluate(model, tokens, 1, segment_length)
        assert result.tokens == 100
        assert result.nats == pytest.approx(nats, abs=1e-3)


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
