"""Blocks of queries against one attention over all keys."""

import numpy as np
import pytest
import tensorflow as tf

import official_lrm as lrm
from official_lrm.layers import attention_blocks

SIZES = {
    "vocab_size": 31,
    "hidden_size": 14,
    "num_heads": 2,
    "head_size": 5,
    "inner_size": 17,
}
B = 3


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(attention_blocks, "_MIN_BLOCK", 4)


def run(model, tokens, position, training=False):
    """Log-probabilities, memories and gradients after half-full memories."""
    rng = np.random.default_rng(7)
    memories = {
        name: tf.constant(rng.normal(size=value.shape))
        for name, value in model.initial_memories(B).items()
    }
    memories["position"] = tf.constant(position, tf.int32)
    with tf.GradientTape() as tape:
        log_probs, memories = model.score(
            tokens, tokens, memories, training=training
        )
        loss = tf.reduce_sum(log_probs)
    gradients = tape.gradient(
        loss, [weight.value for weight in model.trainable_variables]
    )
    return log_probs, memories, [tf.convert_to_tensor(x) for x in gradients]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("attend_to_empty", [False, True])
@pytest.mark.parametrize("num_queries", [12, 13, 20])
@pytest.mark.parametrize("spans", [(3, 0), (5, 2), (6, 23)], ids=str)
def test_blocks_change_nothing(
    small_blocks, monkeypatch, spans, num_queries, attend_to_empty, training
):
    model = lrm.TransformerXLLanguageModel(
        spans=spans,
        **SIZES,
        same_length=True,
        attend_to_empty=attend_to_empty,
        dtype="float64",
    )
    tokens = np.random.default_rng(5).integers(0, 31, size=(B, num_queries))
    position = [0, 2, 2**31 - 1]

    lengths = [
        attention_blocks.block_length(span, num_queries, True) for span in spans
    ]
    assert any(lengths)
    in_blocks = run(model, tokens, position, training)
    monkeypatch.setattr(attention_blocks, "_MIN_BLOCK", 1000)
    at_once = run(model, tokens, position, training)

    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11),
        in_blocks,
        at_once,
    )


@pytest.mark.parametrize(
    ("span", "num_queries", "same_length", "expected"),
    [
        (128, 512, True, 128),
        (128, 255, True, None),
        (300, 600, True, 300),
        (300, 599, True, None),
        (0, 256, True, 128),
        (128, 512, False, None),
        (128, tf.constant(512), True, None),
    ],
)
def test_blocks_are_for_segments_of_two_at_least(
    span, num_queries, same_length, expected
):
    length = attention_blocks.block_length(span, num_queries, same_length)
    assert length == expected


def test_the_work_grows_with_the_segment_and_not_its_square():
    # Given a model that scores texts with short memories,
    model = lrm.TransformerXLLanguageModel(
        spans=(128, 128), **SIZES, same_length=True
    )

    def flops(num_queries):
        graph = (
            tf.function(lambda tokens: model(tokens)[0])
            .get_concrete_function(tf.TensorSpec((1, num_queries), tf.int32))
            .graph
        )
        total = 0
        for op in graph.get_operations():
            if op.type in ("MatMul", "BatchMatMulV2"):
                width = op.inputs[0].shape[-1]
                total += op.outputs[0].shape.num_elements() * width
        return total / num_queries

    # when the segment is 16 times as long, a token costs the same.
    assert flops(8192) == pytest.approx(flops(512), rel=0.02)
