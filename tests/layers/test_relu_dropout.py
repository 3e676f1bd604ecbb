"""relu_dropout is relu, then dropout, in its values and its gradient."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from official_lrm.layers.relu_dropout import relu_dropout
from official_lrm.layers.stateless_dropout import stateless_dropout

SEED = np.array([17, 5], "int32")


def values_and_gradient(function, inputs):
    inputs = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = function(inputs)
        # A gradient that is another one for each element.
        loss = ops.sum(outputs * ops.cos(inputs))
    return outputs.numpy(), tape.gradient(loss, inputs).numpy()


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("in_graph", [False, True])
def test_it_is_relu_then_dropout(rate, in_graph):
    # Given numbers of both signs, and a zero,
    inputs = np.random.default_rng(3).normal(size=(11, 13))
    inputs[0, 0] = 0.0

    def both(x):
        return relu_dropout(x, rate, SEED, site=4)

    def plain(x):
        return stateless_dropout(ops.relu(x), rate, SEED, site=4)

    # when both are differentiated,
    wrap = tf.function if in_graph else (lambda function: function)
    outputs, gradient = values_and_gradient(wrap(both), inputs)
    expected, expected_gradient = values_and_gradient(plain, inputs)
    # then they agree, and what is dropped gets none.
    np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-14)
    assert np.mean(outputs > 0) == pytest.approx(0.5 * (1 - rate), abs=0.12)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_the_gradient_is_its_portable_twin(monkeypatch, dtype):
    inputs = np.random.default_rng(5).normal(size=(11, 13)).astype("float32")
    inputs[0, 0] = 0.0

    def gradient():
        x = tf.cast(inputs, dtype)
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = relu_dropout(x, 0.0, None, site=0)
        return tape.gradient(outputs, x, output_gradients=3 - x).numpy()

    expected = gradient()
    monkeypatch.setattr(keras.backend, "backend", lambda: "another")
    np.testing.assert_array_equal(gradient(), expected)
    assert not expected[0, 0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_the_dtype_stays(dtype):
    inputs = tf.ones([3, 5], dtype)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = relu_dropout(inputs, 0.5, SEED, site=1)
    assert outputs.dtype == dtype
    assert tape.gradient(outputs, inputs).dtype == dtype
