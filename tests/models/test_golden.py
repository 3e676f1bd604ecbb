"""The numbers of public Transformer-XL implementations, segment by segment."""

import keras
import numpy as np
import pytest

TOLERANCE = 1e-4
NUM_LAYERS = 4


def segments(golden, prefix):
    count = sum(name.startswith(f"{prefix}_") for name in golden)
    length = golden[f"{prefix}_0"].shape[1]
    return count, length


def largest_difference(ours, theirs):
    ours = np.array(ours)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max())


def test_attending_to_empty_memory_as_hugging_face(transfo_xl_char):
    model, golden = transfo_xl_char
    count, length = segments(golden, "log_probs")
    assert (count, length) == (3, 7)
    memories = model.initial_memories(2)
    for s in range(count):
        tokens = golden["ids"][:, length * s : length * (s + 1)]
        logits, memories = model(tokens, memories)
        outputs = largest_difference(
            keras.ops.log_softmax(logits), golden[f"log_probs_{s}"]
        )
        states = max(
            largest_difference(
                memories[f"memory_{layer:02d}"], golden[f"mems_{s}_{layer}"]
            )
            for layer in range(NUM_LAYERS)
        )
        print(f"segment {s}: log-probs {outputs:.1e}, memories {states:.1e}")
        assert max(outputs, states) < TOLERANCE
        assert np.array(memories["position"]).tolist() == [7 * (s + 1)] * 2


def test_growing_memory_as_the_pytorch_reference(mem_transformer_growing):
    model, golden = mem_transformer_growing
    count, length = segments(golden, "nll")
    assert (count, length) == (4, 5)
    memories = model.initial_memories(2)
    for s in range(count):
        start, end = length * s, length * (s + 1)
        log_probs, memories = model.score(
            golden["ids"][:, start:end],
            golden["ids"][:, start + 1 : end + 1],
            memories,
        )
        outputs = largest_difference(-np.array(log_probs), golden[f"nll_{s}"])
        states = 0.0
        for layer in range(NUM_LAYERS):
            # The reference holds what has been seen and no more.
            expected = golden[f"mems_{s}_{layer}"]
            seen = expected.shape[1]
            assert seen == min(end, 11)
            memory = np.array(memories[f"memory_{layer:02d}"])[:, -seen:]
            states = max(states, largest_difference(memory, expected))
        print(f"segment {s}: nll {outputs:.1e}, memories {states:.1e}")
        assert max(outputs, states) < TOLERANCE


@pytest.mark.parametrize(
    ("fixture", "result"),
    [("transfo_xl_char", "log_probs_0"), ("mem_transformer_growing", "nll_0")],
)
def test_the_golden_numbers_tell_the_two_kinds_of_empty_apart(
    fixture, result, request
):
    # Without this, the tests above might hold whatever attend_to_empty does.
    model, golden = request.getfixturevalue(fixture)
    expected = golden[result]
    length = expected.shape[1]
    other = model.with_spans(
        model.spans, attend_to_empty=not model.attend_to_empty
    )
    logits, _ = other(golden["ids"][:, :length])
    log_probs = np.array(keras.ops.log_softmax(logits))
    if result == "nll_0":
        targets = golden["ids"][:, 1 : length + 1]
        log_probs = -np.take_along_axis(log_probs, targets[..., None], -1)
        expected = expected[..., None]
    assert np.max(np.abs(log_probs - expected)) > 100 * TOLERANCE
