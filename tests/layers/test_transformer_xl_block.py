"""Tests of one layer of the Transformer-XL."""

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.layers import TransformerXLBlock, attention_mask

B, T, M, N, H, D, F = 2, 3, 5, 7, 4, 11, 13
SEED = np.array([3, 5], "int32")


def make(dtype="float64", **kwargs):
    block = TransformerXLBlock(D, N, H, F, dtype=dtype, **kwargs)
    block.build()
    rng = np.random.default_rng(2)
    for weight in block.weights:
        weight.assign(rng.normal(size=weight.shape) * 0.3 + 0.1)
    return block


def arguments(span=M):
    rng = np.random.default_rng(3)
    return {
        "inputs": rng.normal(size=(B, T, D)),
        "memory": rng.normal(size=(B, span, D)) if span else None,
        "positions": rng.normal(size=(span + T, D)),
        "content_bias": rng.normal(size=(N, H)),
        "position_bias": rng.normal(size=(N, H)),
        "mask": attention_mask(np.array([1, 97], "int32"), span, T),
    }


def layer_norm(x, norm):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return scaled * np.array(norm.gamma) + np.array(norm.beta)


@pytest.mark.parametrize("span", [0, M])
def test_it_is_the_equation_around_the_attention(span):
    block, inputs = make(), arguments(span)
    x = inputs["inputs"]
    attended = np.array(block.attention(**inputs))
    a = layer_norm(x + attended, block.attention_norm)
    w_1, b_1 = np.array(block.inner.kernel), np.array(block.inner.bias)
    w_2, b_2 = np.array(block.outer.kernel), np.array(block.outer.bias)
    inner = np.maximum(a @ w_1 + b_1, 0)
    expected = layer_norm(a + inner @ w_2 + b_2, block.feed_forward_norm)
    np.testing.assert_allclose(block(**inputs), expected, atol=1e-12)


def test_the_epsilon_is_the_one_asked_for():
    # With an enormous epsilon the last norm gives nothing but its offset.
    block = make(layer_norm_epsilon=1e30)
    offset = np.broadcast_to(block.feed_forward_norm.beta, (B, T, D))
    np.testing.assert_allclose(block(**arguments()), offset, atol=1e-9)


def test_parameters_are_counted_by_the_formula():
    # 3Dh + Dh + hD + 4D + 2DF + F + D, h = N * H.
    h = N * H
    expected = 3 * D * h + D * h + h * D + 4 * D + 2 * D * F + F + D
    assert make().count_params() == expected


def test_a_bias_loses_nothing_of_its_gradient_in_bfloat16():
    # Given a block in two precisions, and 1,024 positions,
    rng = np.random.default_rng(5)
    tensors = {
        "inputs": rng.normal(size=(8, 128, D)),
        "positions": rng.normal(size=(128, D)),
        "content_bias": rng.normal(size=(N, H)),
        "position_bias": rng.normal(size=(N, H)),
    }
    mask = np.tril(np.ones([1, 128, 128], "bool"))
    loss_weights = rng.normal(size=(8, 128, D))

    def gradient(policy):
        block = make(dtype=policy)
        cast = {k: tf.cast(v, block.compute_dtype) for k, v in tensors.items()}
        with tf.GradientTape() as tape:
            outputs = block(**cast, memory=None, mask=mask, training=True)
            loss = tf.reduce_sum(tf.cast(outputs, "float64") * loss_weights)
        return np.array(tape.gradient(loss, block.outer.bias.value), "float64")

    # when the gradient of the last bias is taken, a sum over all of them,
    expected, narrow = gradient("float64"), gradient("mixed_bfloat16")
    # then what was rounded is its terms, and not the sums on the way.
    error = np.linalg.norm(narrow - expected) / np.linalg.norm(expected)
    assert error < 0.01


@pytest.mark.parametrize("rates", [(0.5, 0.0), (0.0, 0.5)])
def test_dropout_is_of_training_only(rates):
    block, inputs = make(dropout=rates[0], attention_dropout=rates[1]), {}
    inputs = arguments()
    plain = np.array(block(**inputs))
    assert np.array_equal(block(**inputs, seed=SEED, first_site=7), plain)
    dropped = block(**inputs, training=True, seed=SEED, first_site=7)
    again = block(**inputs, training=True, seed=SEED, first_site=7)
    other = block(**inputs, training=True, seed=SEED, first_site=11)
    assert not np.allclose(dropped, plain)
    assert np.array_equal(dropped, again)
    assert not np.allclose(dropped, other)


def test_sites_are_as_many_as_the_block_says(monkeypatch):
    # Given a record of the sites at which the block drops,
    sites = []

    def record(inputs, rate, seed, site):
        sites.append(site)
        return inputs

    for module in (
        "transformer_xl_block",
        "attend",
        "relu_dropout",
    ):
        monkeypatch.setattr(
            f"official_lrm.layers.{module}.stateless_dropout", record
        )
    # then they are the ones set aside for it, each once.
    block = make(dropout=0.5, attention_dropout=0.5)
    block(**arguments(), training=True, seed=SEED, first_site=100)
    assert sorted(sites) == [100 + i for i in range(block.NUM_SITES)]


def test_config_round_trip():
    block = TransformerXLBlock(
        D,
        N,
        H,
        F,
        dropout=0.2,
        attention_dropout=0.3,
        layer_norm_epsilon=1e-3,
        initializer_stddev=0.7,
        dtype="mixed_bfloat16",
        name="block_05",
    )
    config = block.get_config()
    again = TransformerXLBlock.from_config(config)
    assert again.get_config() == config
    assert again.name == "block_05"
    assert again.dtype_policy == block.dtype_policy
    expected = {
        "hidden_size": D,
        "num_heads": N,
        "head_size": H,
        "inner_size": F,
        "dropout": 0.2,
        "attention_dropout": 0.3,
        "layer_norm_epsilon": 1e-3,
        "initializer_stddev": 0.7,
    }
    assert {name: config[name] for name in expected} == expected


def test_the_config_rebuilds_the_same_function():
    block = make()
    again = TransformerXLBlock.from_config(block.get_config())
    again.build()
    again.set_weights(block.get_weights())
    assert np.array_equal(again(**arguments()), block(**arguments()))
