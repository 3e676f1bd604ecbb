"""A segment is appended to memories when its gradients are there."""

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.memory import append_segment

SPANS = (9, 0, 11)  # Longer than the segment of 7, which else is all there is.


def inputs_of(tensor):
    """Names of all tensors that a graph's tensor is computed from."""
    seen, waiting = set(), [tensor]
    while waiting:
        found = waiting.pop()
        if found.name not in seen:
            seen.add(found.name)
            waiting.extend(found.op.inputs)
    return seen


@pytest.fixture
def traced(make_model, make_tokens):
    """Returns traced() -> whether each new memory is of the first gradient."""

    def trace():
        model, tokens = make_model(SPANS), make_tokens(2, 7)
        _, memories = model(make_tokens(2, 13, seed=5))
        _, segment = model.score(tokens, tokens, memories, append=False)
        gradients = [tf.ones(x.shape) for x in model.trainable_variables]
        append = tf.function(model.append_segment)
        # Appending later gives the same memories, bit for bit.
        expected = append_segment(memories, segment)
        after = append(memories, segment, gradients)
        assert after.keys() == expected.keys()
        for name, value in expected.items():
            assert after[name].dtype == value.dtype
            np.testing.assert_array_equal(after[name], value)
        graph = append.get_concrete_function(memories, segment, gradients)
        first = graph.inputs[-len(gradients)].name
        return {
            name: first in inputs_of(tensor)
            for name, tensor in graph.structured_outputs.items()
        }

    return trace


def test_xla_for_tpus_appends_after_the_backward_pass(for_tpus, traced):
    # Of what it is not told so it makes copies before.
    waits = traced()
    assert waits == {"memory_00": True, "memory_02": True, "position": False}


def test_the_own_runtime_gets_no_arithmetic(traced):
    assert not any(traced().values())
