"""Figures against hand-computed values."""

import dataclasses
import math

import pytest

from official_lrm.training import EvaluationResult, ScoredText

TEXT = ScoredText(
    unit="character",
    split="validation",
    split_tokens=50,
    documents=3,
    num_tokens=20,
    num_bytes=24,
    num_words=5,
)


@pytest.fixture
def result():
    return EvaluationResult(
        nats=math.log(2) * 60,
        tokens=20,
        segment_length=7,
        lanes=2,
        spans=(3, 0, 11),
        same_length=False,
        seconds=1.0,
        position_nats=(1.0, 2.0, 0.0, 7.0),
        position_tokens=(2, 1, 0, 4),
        text=TEXT,
    )


def with_text(result, **changes):
    text = dataclasses.replace(result.text, **changes)
    return dataclasses.replace(result, text=text)


def test_units_by_hand(result):
    assert result.bits_per_token == pytest.approx(3)
    assert result.perplexity == pytest.approx(8)
    assert result.bits_per_byte == pytest.approx(60 / 24)
    assert result.word_perplexity == pytest.approx(2**12)
    # DESIGN: 2 ** (bpc * characters / words).
    assert result.word_perplexity == pytest.approx(
        2 ** (result.bits_per_token * 20 / 5)
    )


def test_the_figure_is_that_of_the_unit(result):
    assert result.figure == "3.0000 bpc"
    for unit in ("word", "piece"):
        assert with_text(result, unit=unit).figure == "8.000 perplexity"


def test_bytes_and_words_of_other_targets_are_not_used(result):
    for changes in ({"num_tokens": 21}, {"num_bytes": None, "num_words": None}):
        other = with_text(result, **changes)
        assert other.bits_per_byte is None
        assert other.word_perplexity is None


def test_nothing_overflows(result):
    result = dataclasses.replace(result, nats=1e9)
    assert math.isfinite(result.perplexity)
    assert math.isfinite(result.word_perplexity)


def test_positions_leave_empty_buckets_out(result):
    rows = result.positions
    assert [(row["first"], row["last"]) for row in rows] == [
        (0, 0),
        (1, 1),
        (4, 7),
    ]
    assert [row["tokens"] for row in rows] == [2, 1, 4]
    assert [row["nats_per_token"] for row in rows] == [0.5, 2.0, 1.75]
    assert rows[1]["perplexity"] == pytest.approx(math.exp(2))


def test_the_protocol_has_all_that_a_figure_depends_on(result):
    assert result.is_subset
    assert result.protocol == (
        "T=7, 2 lane(s), 20 targets (a subset of the 50 of the validation "
        "split) in 3 document(s), memory cold at the start of each lane and "
        "document, causal mask, no clamp, empty slots masked, "
        "MemorySpans([3, 0, 11])"
    )
    other = dataclasses.replace(
        with_text(result, split_tokens=20),
        same_length=True,
        clamp_length=5,
        attend_to_empty=True,
        protocol_name="dai2019 but T=7",
    )
    assert not other.is_subset
    assert other.protocol.startswith("dai2019 but T=7; T=7, ")
    for part in (
        "20 targets (all of the validation split)",
        "same-length mask",
        "clamp 5",
        "empty slots attended to",
    ):
        assert part in other.protocol
