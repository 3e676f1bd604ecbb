"""The mask of dropout against its portable twin."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from official_lrm.kernels import dropout_mask
from official_lrm.layers import stateless_dropout

SEED = tf.constant([17, 5])
SHAPE = (7, 1001, 13)


@pytest.mark.parametrize("rate", [2**-14, 0.1, 0.5, 0.97])
def test_it_keeps_as_many_as_keras_does(rate):
    mask = np.array(dropout_mask(SHAPE, rate, SEED, "float32"))
    twin = keras.random.dropout(np.ones(SHAPE, "float32"), rate, seed=3)
    assert set(np.unique(mask)) == {0, 1}
    # Five standard deviations of the difference.
    bound = 5 * np.sqrt(2 * rate * (1 - rate) / mask.size)
    assert abs(np.mean(mask) - np.mean(np.array(twin) != 0)) < bound
    assert abs(np.mean(mask) - (1 - rate)) < bound


@pytest.mark.parametrize("backend", ["tensorflow", "another"])
def test_dropout_scales_what_it_keeps(monkeypatch, backend):
    # Given the path of TensorFlow, and the one of all other backends,
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    inputs = np.linspace(1, 2, 10_007, dtype="float32")
    outputs = np.array(stateless_dropout(inputs, 0.2, SEED, 3))
    # then what is kept is divided by the share that is kept.
    kept = outputs != 0
    np.testing.assert_allclose(outputs[kept], inputs[kept] / 0.8, rtol=1e-6)
    assert abs(np.mean(kept) - 0.8) < 0.02


def test_neighbours_are_independent():
    # Two of them share a random number of 32 bits.
    mask = np.array(dropout_mask((200_000,), 0.5, SEED, "float32"))
    pairs = mask.reshape(-1, 2)
    correlation = np.corrcoef(pairs[:, 0], pairs[:, 1])[0, 1]
    assert abs(correlation) < 5 / np.sqrt(len(pairs))


@pytest.mark.parametrize("shape", [(0,), (1,), (3,), (2, 3), (4, 5, 3)])
def test_sizes_may_be_odd_or_tensors(shape):
    expected = dropout_mask(shape, 0.5, SEED, "float32")
    assert expected.shape == shape

    @tf.function(input_signature=[tf.TensorSpec([len(shape)], tf.int32)])
    def dynamic(sizes):
        return dropout_mask(tuple(tf.unstack(sizes)), 0.5, SEED, "float32")

    assert np.array_equal(dynamic(shape), expected)


def test_it_is_the_same_compiled():
    def draw(seed):
        return dropout_mask((33, 65), 0.3, seed, "bfloat16")

    plain = tf.function(draw)(SEED)
    compiled = tf.function(draw, jit_compile=True)(SEED)
    assert plain.dtype == compiled.dtype == tf.bfloat16
    assert np.array_equal(plain, compiled)
