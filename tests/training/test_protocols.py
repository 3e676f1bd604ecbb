"""Published protocols: their values, and how a difference is named."""

import dataclasses
import types

import pytest

from official_lrm.memory.spans import MemorySpans
from official_lrm.training import EvaluationResult, ScoredText
from official_lrm.training.protocols import PROTOCOLS, find_protocol

MIXED = MemorySpans([128, 2304, 128, 2304])
ALIKE = MemorySpans([384, 384])


@pytest.mark.parametrize(
    ("name", "unit", "trained", "expected"),
    [
        ("dai2019", "character", MIXED, (128, 3800, 128, 3800)),
        ("dai2019", "word", MIXED, (128, 1600, 128, 1600)),
        ("dai2019", "character", ALIKE, (3800, 3800)),
        ("dai2019", "word", ALIKE, (1600, 1600)),
        ("rae2020", "character", MIXED, (128, 6000, 128, 6000)),
        ("rae2020", "word", MIXED, (128, 6000, 128, 6000)),
        # No long-range memory, as in the paper's run without any.
        ("rae2020", "character", ALIKE, (384, 384)),
    ],
)
def test_spans(name, unit, trained, expected):
    assert find_protocol(name).spans(trained, unit).lengths == expected


@pytest.mark.parametrize("name", PROTOCOLS)
def test_word_pieces_have_none(name):
    with pytest.raises(ValueError, match="characters and words only; got a"):
        find_protocol(name).spans(MIXED, "piece")


def test_values():
    dai, rae = find_protocol("dai2019"), find_protocol("rae2020")
    assert (dai.segment_length, rae.segment_length) == (128, 384)
    assert dai.overrides() == {"same_length": True, "clamp_length": 1000}
    assert rae.overrides() == {}
    assert rae.max_tokens("validation", "character") == 500_000
    for split, unit in (("test", "character"), ("validation", "word")):
        assert rae.max_tokens(split, unit) is None
    assert dai.max_tokens("validation", "character") is None


def test_an_unknown_one_is_refused():
    with pytest.raises(ValueError, match="one of dai2019, rae2020; got 'dai'"):
        find_protocol("dai")


def model_of(spans, same_length=False, clamp_length=None):
    return types.SimpleNamespace(
        spans=MemorySpans(spans),
        same_length=same_length,
        clamp_length=clamp_length,
    )


def described(name, model, long_memory=None, length=None, **text):
    protocol = find_protocol(name)
    text = ScoredText(**{"unit": "character", "split": "test", **text})
    result = EvaluationResult(
        nats=1.0,
        tokens=text.num_tokens or 700,
        segment_length=length or protocol.segment_length,
        lanes=1,
        spans=model.spans.lengths,
        same_length=model.same_length,
        seconds=0.0,
        text=dataclasses.replace(text, split_tokens=700),
    )
    return protocol.describe(model, model_of(MIXED), result, long_memory)


DAI = ((128, 3800, 128, 3800), True, 1000)
RAE = ((128, 6000, 128, 6000), False, None)


def test_what_follows_it_has_its_name():
    assert described("dai2019", model_of(*DAI)) == "dai2019"
    assert described("rae2020", model_of(*RAE)) == "rae2020"
    # A sweep that comes by its length, and fewer targets than its limit.
    assert described("rae2020", model_of(*RAE), 6000) == "rae2020"
    assert described("rae2020", model_of(*RAE), split="validation") == "rae2020"


@pytest.mark.parametrize(
    ("name", "model", "arguments", "words"),
    [
        ("dai2019", DAI, {"length": 64}, "T=64"),
        (
            "dai2019",
            ((128, 3800, 128, 3800), False, 1000),
            {},
            "same_length=False",
        ),
        ("dai2019", ((128, 3800, 128, 3800), True, 7), {}, "clamp_length=7"),
        ("dai2019", ((1, 2, 3, 4), True, 1000), {}, "spans"),
        (
            "dai2019",
            ((128, 9, 128, 9), True, 1000),
            {"long_memory": 9},
            "long_memory=9",
        ),
        ("dai2019", DAI, {"num_tokens": 101}, "max_tokens=101"),
        ("dai2019", DAI, {"unit": "piece"}, "spans"),
        (
            "rae2020",
            ((128, 6000, 128, 6000), True, 7),
            {"length": 7},
            "T=7, same_length=True, clamp_length=7",
        ),
    ],
)
def test_a_difference_is_named(name, model, arguments, words):
    line = described(name, model_of(*model), **arguments)
    assert line == f"{name} but {words}"
