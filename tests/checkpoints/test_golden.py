"""Converted weights give the numbers of the implementation they are from."""

import pathlib

import keras
import numpy as np
import pytest

import official_lrm as lrm

TOLERANCE = 1e-4

TF1_CHECKPOINT = (
    pathlib.Path(__file__).parents[1] / "testdata/tf1_char/model.ckpt-1234"
)

HUGGING_FACE = (
    "transfo_xl_char",
    "transfo_xl_word",
    "hf_three_tails",
    "hf_div1_cutoffs",
    "hf_div1_projected",
    "hf_unshared",
    "hf_projected_dense",
    "hf_untied",
)
REFERENCE = (
    "mem_transformer_growing",
    "pt_three_tails",
    "pt_untied_softmax",
)


def convert(file, **kwargs):
    return lrm.checkpoints.from_transfo_xl(
        file.state_dict, file.config, **kwargs
    )


def segments(file, prefix):
    """The number of segments and their length."""
    count = sum(name.startswith(f"{prefix}_") for name in file.arrays)
    return count, file.arrays[f"{prefix}_0"].shape[1]


def difference(ours, theirs):
    ours = np.array(ours)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max())


def memories_differ_by(memories, file, segment, num_layers):
    largest = 0.0
    for layer in range(num_layers):
        # The reference's memory holds what has been seen and no more.
        theirs = file.arrays[f"mems_{segment}_{layer}"]
        ours = np.array(memories[f"memory_{layer:02d}"])[:, -theirs.shape[1] :]
        largest = max(largest, difference(ours, theirs))
    return largest


def check_hugging_face(model, file):
    count, length = segments(file, "log_probs")
    assert (count, length) == (3, 7)
    memories = model.initial_memories(2)
    for s in range(count):
        tokens = file.arrays["ids"][:, length * s : length * (s + 1)]
        expected = file.arrays[f"log_probs_{s}"]
        targets = tokens[:, ::-1]
        scores, _ = model.score(tokens, targets, memories)
        logits, memories = model(tokens, memories)
        at_targets = np.take_along_axis(expected, targets[..., None], -1)
        differences = (
            difference(keras.ops.log_softmax(logits), expected),
            difference(scores, at_targets[..., 0]),
            memories_differ_by(memories, file, s, len(model.spans)),
        )
        print(f"segment {s}: log-probs, scores, memories {differences}")
        assert max(differences) < TOLERANCE
        assert np.array(memories["position"]).tolist() == [7 * (s + 1)] * 2
        if model.get_config()["cutoffs"]:
            assert difference(logits, expected) < TOLERANCE


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_hugging_face(golden, name):
    file = golden(name)
    check_hugging_face(convert(file), file)


@pytest.mark.parametrize("name", REFERENCE)
def test_the_pytorch_reference(golden, name):
    file = golden(name)
    model = convert(file, attend_to_empty=False)
    count, length = segments(file, "nll")
    assert (count, length) == (4, 5)
    memories = model.initial_memories(2)
    for s in range(count):
        start, end = length * s, length * (s + 1)
        log_probs, memories = model.score(
            file.arrays["ids"][:, start:end],
            file.arrays["ids"][:, start + 1 : end + 1],
            memories,
        )
        differences = (
            difference(-np.array(log_probs), file.arrays[f"nll_{s}"]),
            memories_differ_by(memories, file, s, len(model.spans)),
        )
        print(f"segment {s}: nll, memories {differences}")
        assert max(differences) < TOLERANCE


def test_the_tensorflow_reference(golden):
    file = golden("transfo_xl_char")
    model = lrm.checkpoints.from_transformer_xl_tf1(TF1_CHECKPOINT, file.config)
    check_hugging_face(model, file)


@pytest.mark.parametrize(
    ("name", "result"),
    [("transfo_xl_char", "log_probs_0"), ("mem_transformer_growing", "nll_0")],
)
def test_the_golden_numbers_tell_the_two_kinds_of_empty_apart(
    golden, name, result
):
    # Without this, the tests above might hold whatever attend_to_empty does.
    file = golden(name)
    other = convert(file, attend_to_empty=result == "nll_0")
    expected, ids = file.arrays[result], file.arrays["ids"]
    length = expected.shape[1]
    logits, _ = other(ids[:, :length])
    log_probs = np.array(keras.ops.log_softmax(logits))
    if result == "nll_0":
        targets = ids[:, 1 : length + 1]
        log_probs = -np.take_along_axis(log_probs, targets[..., None], -1)
        expected = expected[..., None]
    assert np.max(np.abs(log_probs - expected)) > 100 * TOLERANCE


@pytest.mark.parametrize(
    ("name", "field", "other"),
    [
        ("hf_three_tails", "clamp_len", -1),
        ("hf_untied", "same_length", False),
        ("hf_untied", "clamp_len", 3),
    ],
)
def test_the_golden_numbers_depend_on(golden, name, field, other):
    file = golden(name)
    file.config[field] = other
    with pytest.raises(AssertionError):
        check_hugging_face(convert(file), file)
