"""Tests of the token embedding and of the softmax that shares its table."""

import keras
import numpy as np
import pytest

from official_lrm.layers import TokenEmbedding, TokenSoftmax

V, D = 5, 4


def make(dtype="float32"):
    embedding = TokenEmbedding(V, D, dtype=dtype)
    embedding.build()
    embedding.table.assign(np.arange(20.0).reshape(V, D) / 10)
    softmax = TokenSoftmax(V)
    softmax.build()
    softmax.bias.assign([0.0, 0.1, 0.2, 0.3, 0.4])
    return embedding, softmax


def test_rows_are_scaled_by_the_root_of_the_hidden_size():
    embedding, _ = make()
    embedded = embedding(np.array([[3, 0, 4]]))
    np.testing.assert_allclose(
        embedded,
        [[[2.4, 2.6, 2.8, 3.0], [0.0, 0.2, 0.4, 0.6], [3.2, 3.4, 3.6, 3.8]]],
        rtol=1e-6,
    )


def test_logits_are_products_with_the_table():
    embedding, softmax = make()
    # Given a hidden state that picks out the second column,
    hidden = np.array([[[0.0, 1.0, 0.0, 0.0]]], "float32")
    logits = softmax(hidden, embedding=embedding)
    # then the logits are that column, unscaled, and the bias.
    np.testing.assert_allclose(logits, [[[0.1, 0.6, 1.1, 1.6, 2.1]]], rtol=1e-6)


def test_log_probabilities_are_those_of_the_targets():
    embedding, softmax = make()
    hidden = np.random.default_rng(2).normal(size=(2, 3, D)).astype("float32")
    targets = np.array([[0, 4, 2], [1, 1, 3]])
    logits = np.array(softmax(hidden, embedding=embedding), "float64")
    total = np.log(np.sum(np.exp(logits), axis=-1))
    expected = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    log_probs = softmax.log_probabilities(hidden, targets, embedding)
    np.testing.assert_allclose(log_probs, expected - total, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_logits_are_summed_in_float32(policy):
    embedding, softmax = make(policy)
    compute_dtype = policy.removeprefix("mixed_")
    assert embedding(np.array([[3]])).dtype == compute_dtype
    # 1/3 is not a half precision number: a rounded table would show.
    embedding.table.assign(np.full([V, D], 1 / 3))
    hidden = keras.ops.ones([1, 1, D], compute_dtype)
    logits = softmax(hidden, embedding=embedding)
    assert logits.dtype == "float32"
    assert float(logits[0, 0, 0]) == pytest.approx(4 / 3, rel=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        TokenEmbedding(V, D, initializer_stddev=0.3, name="a"),
        TokenSoftmax(V, dtype="float64", name="b"),
    ],
)
def test_config_round_trip(layer):
    config = layer.get_config()
    again = type(layer).from_config(config)
    assert again.get_config() == config
    assert again.dtype_policy == layer.dtype_policy
