"""Positions that are projected once are those that each call projects."""

import keras
import numpy as np
import pytest
import tensorflow as tf


@pytest.mark.parametrize(
    ("spans", "length", "arguments"),
    [
        ((5, 0, 11), 7, {}),
        ((5, 0, 11), 7, {"clamp_length": 4, "untie_biases": True}),
        ((5, 0, 11), 300, {"same_length": True}),  # In blocks of 128.
        ((5, 0, 11), 7, {"memory_format": "key_value"}),
        ((3,), 1, {"attend_to_empty": True}),
    ],
)
@pytest.mark.parametrize("in_graph", [False, True])
def test_no_value_changes(
    make_model, make_tokens, spans, length, arguments, in_graph
):
    # Given two segments, of which the second one sees memories,
    model = make_model(spans, dtype="float64", **arguments)
    tokens = make_tokens(2, 2 * length)
    score = tf.function(model.score) if in_graph else model.score
    projected = model.project_positions(length)
    for projected_positions in (None, projected):
        memories, values = model.initial_memories(2), []
        for start in (0, length):
            segment = tokens[:, start : start + length]
            log_probs, memories = score(
                segment,
                segment,
                memories,
                projected_positions=projected_positions,
            )
            values.append(np.array(log_probs))
        if projected_positions is None:
            expected, expected_memories = values, memories
    # then both ways are one.
    np.testing.assert_allclose(values, expected, rtol=1e-13)
    for name, memory in expected_memories.items():
        np.testing.assert_allclose(memories[name], memory, rtol=1e-13)


def test_the_products_are_no_longer_in_the_graph(make_model, make_tokens):
    model = make_model((5, 0, 11))
    tokens = tf.constant(make_tokens(2, 7))

    def products(**positions):
        graph = tf.function(model.score).get_concrete_function(
            tokens, tokens, model.initial_memories(2), **positions
        )
        kinds = [op.type for op in graph.graph.get_operations()]
        return kinds.count("MatMul") + kinds.count("BatchMatMulV2")

    projected = model.project_positions(7)
    assert products() - products(projected_positions=projected) == 3


def test_shapes_and_dtype(make_model):
    model = make_model((200, 0, 11), same_length=True, dtype="mixed_bfloat16")
    shapes = [tuple(x.shape) for x in model.project_positions(300)]
    # 300 are less than two blocks of 200; else blocks are of 128.
    assert shapes == [(3, 500, 5), (3, 128, 5), (3, 139, 5)]
    dtypes = {
        keras.backend.standardize_dtype(x.dtype)
        for x in model.project_positions(300)
    }
    assert dtypes == {"bfloat16"}


def test_those_of_another_length_are_refused(make_model, make_tokens):
    model, tokens = make_model((5, 0)), make_tokens(2, 7)
    with pytest.raises(
        ValueError,
        match=r"project_positions\(7\) returns, of \[12, 7\] positions in the "
        r"layers; got \[13, 8\]\.",
    ):
        model.score(
            tokens, tokens, projected_positions=model.project_positions(8)
        )


def test_training_projects_its_own(make_model, make_tokens):
    model, tokens = make_model((5, 0)), make_tokens(2, 7)
    with pytest.raises(ValueError, match="must be None in training"):
        model.score(
            tokens,
            tokens,
            training=True,
            projected_positions=model.project_positions(7),
        )
