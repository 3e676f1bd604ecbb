"""FLOPs that are counted on paper are those of the model's own graph."""

import pytest
import tensorflow as tf

import official_lrm as lrm
from official_lrm.models.flop_count import TRAINING_FACTOR, count_flops

# Pairwise distinct, so that no two can change places.
B, T = 2, 7
SIZES = {
    "vocab_size": 31,
    "hidden_size": 14,
    "num_heads": 3,
    "head_size": 5,
    "inner_size": 17,
}
ENWIK8 = {
    "vocab_size": 204,
    "hidden_size": 1024,
    "num_heads": 8,
    "head_size": 128,
    "inner_size": 3072,
}


def products_of(function):
    """FLOPs of the matrix products that function(tokens) needs.

    TensorFlow leaves out what a graph's outputs do not depend on.
    """
    tokens = tf.TensorSpec((B, T), tf.int32)
    graph = tf.function(function).get_concrete_function(tokens).graph
    needed, left = set(), [output.op for output in graph.outputs]
    while left:
        if (op := left.pop()) not in needed:
            needed.add(op)
            left += [tensor.op for tensor in op.inputs] + op.control_inputs
    flops = 0
    for op in needed:
        assert op.type not in ("Einsum", "XlaDotV2", "PartitionedCall")
        if op.type in ("MatMul", "BatchMatMulV2"):
            flag = "transpose_a" if op.type == "MatMul" else "adj_x"
            shape = op.inputs[0].shape
            inner = shape[-2] if op.get_attr(flag) else shape[-1]
            flops += 2 * op.outputs[0].shape.num_elements() * inner
    return flops


def extra_column(num_layers):
    """FLOPs of the distance K, which is computed and not looked at.

    See relative_shift; no model needs it, so it is not counted.
    """
    return num_layers * 2 * B * T * SIZES["num_heads"] * SIZES["head_size"]


@pytest.mark.parametrize(
    ("spans", "arguments"),
    [
        ((5, 0, 11), {"untie_biases": True}),
        ((11, 11), {}),
        ((5, 0), {"embedding_size": 6}),
        ((5,), {"cutoffs": (5, 11), "div_value": 2}),
        ((0,), {"cutoffs": (5, 11), "embedding_size": 6}),
        (
            (3,),
            {
                "cutoffs": (5,),
                "div_value": 2,
                "embedding_size": 12,
                "tie_embeddings": False,
                "share_projections": False,
            },
        ),
    ],
    ids=str,
)
def test_they_are_the_models_own(spans, arguments):
    model = lrm.TransformerXLLanguageModel(spans=spans, **SIZES, **arguments)
    memories = model.initial_memories(B)

    count = count_flops(spans, T, B, **SIZES, **arguments)

    # The call computes every cluster's logits for every token.
    expected = count.total + B * T * sum(count.tails)
    expected += extra_column(len(spans))
    assert products_of(lambda tokens: model(tokens, memories)) == expected


def test_score_computes_the_tails_apart():
    arguments = {**SIZES, "cutoffs": (5, 11), "div_value": 2}
    model = lrm.TransformerXLLanguageModel(spans=(5, 0), **arguments)
    memories = model.initial_memories(B)

    count = count_flops((5, 0), T, B, **arguments)

    # Logits of whole clusters are in loops, which are not looked into here.
    logits = 2 * B * T * 5 * 14
    assert products_of(
        lambda tokens: model.score(tokens, tokens, memories)
    ) == count.total - logits + extra_column(2)
    assert count.tails == (2 * 6 * 7, 2 * 20 * 3)
    assert count.most == count.total + B * T * 2 * 20 * 3


def test_training_is_three_times_the_forward_pass_but_for_constants():
    model = lrm.TransformerXLLanguageModel(spans=(5, 0), **SIZES, dropout=0.1)
    memories = model.initial_memories(B)

    def step(tokens):
        with tf.GradientTape() as tape:
            log_probs, _ = model.score(
                tokens, tokens, memories, training=True, seed=[3, 5]
            )
        return tape.gradient(
            log_probs, [weight.value for weight in model.trainable_variables]
        )

    count = count_flops((5, 0), T, B, **SIZES)

    assert products_of(step) == count.training + TRAINING_FACTOR * extra_column(
        2
    )
    # One product less for the keys and for the values of memories, and for the
    # tables of positions.
    square = SIZES["hidden_size"] * SIZES["num_heads"] * SIZES["head_size"]
    spared = 2 * (2 * B * 5 + (5 + T) + T) * square
    assert count.training == TRAINING_FACTOR * count.total - spared


def test_layers_of_the_paper_by_hand():
    spans = lrm.MemorySpans.arrange(24, 4)

    count = count_flops(spans, 384, 32, **ENWIK8)

    square, queries = 1024 * 1024, 32 * 384  # D = h
    by_hand = {
        span: 2
        * (
            2 * queries * square  # Queries and output.
            + 2 * 32 * keys * square  # Keys and values.
            + keys * square  # Positions, once for 32 lanes.
            + 3 * queries * keys * 1024  # Content, position, weighted values.
            + 2 * queries * 1024 * 3072
        )
        for span, keys in ((2304, 2688), (128, 512))
    }
    assert count.layers == tuple(by_hand[span] for span in spans)
    assert count.embedding == 0
    assert count.softmax == 2 * queries * 1024 * 204
    assert count.tails == ()
    assert count.most == count.total
    assert count.num_tokens == queries
    assert count.per_token(count.softmax) == 2 * 1024 * 204
    full = count_flops([2304] * 24, 384, 32, **ENWIK8)
    assert count.total / full.total == pytest.approx(0.505, abs=5e-4)


def test_a_layer_does_not_depend_on_the_others():
    count = count_flops((5, 0, 11), T, B, **SIZES)
    alone = [count_flops((span,), T, B, **SIZES) for span in (5, 0, 11)]
    assert count.layers == tuple(each.layers[0] for each in alone)
    assert len(set(count.layers)) == 3
    assert {each.softmax for each in alone} == {count.softmax}


@pytest.mark.parametrize("value", [0, -1, 2.0, True, None])
@pytest.mark.parametrize("name", ["segment_length", "batch_size"])
def test_errors_name_the_argument(name, value):
    arguments = {"segment_length": T, "batch_size": B, name: value}
    message = f"^{name} must be a positive integer; got {value!r}\\.$"
    with pytest.raises(ValueError, match=message):
        count_flops((5,), **arguments, **SIZES)
