"""Keys of a memory and a segment, and what gets a gradient."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.layers.project_to_heads import project_to_heads

B, M, T, D, N, H = 2, 5, 3, 7, 4, 11


@pytest.mark.parametrize("in_graph", [False, True])
def test_it_is_a_projection_whose_memory_gets_no_gradient(in_graph):
    rng = np.random.default_rng(3)
    memory, inputs, kernel, weights = (
        tf.constant(rng.normal(size=shape))
        for shape in ((B, M, D), (B, T, D), (D, N * H), (N, B, M + T, H))
    )

    def plain(memory, inputs, kernel):
        context = tf.concat([tf.stop_gradient(memory), inputs], axis=1)
        heads = tf.reshape(kernel, (D, N, H))
        return tf.einsum("bkd,dnh->nbkh", context, heads)

    def differentiated(function):
        with tf.GradientTape() as tape:
            tape.watch([memory, inputs, kernel])
            outputs = function(memory, inputs, kernel)
            loss = tf.reduce_sum(outputs * weights)
        gradients = tape.gradient(
            loss, [memory, inputs, kernel], unconnected_gradients="zero"
        )
        return [outputs, *gradients]

    if in_graph:
        differentiated = tf.function(differentiated)

    def trained(memory, inputs, kernel):
        return project_to_heads(inputs, kernel, N, memory, training=True)

    for value, expected in zip(
        differentiated(trained), differentiated(plain), strict=True
    ):
        np.testing.assert_allclose(value, expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(T, D), (B, T, D)])
def test_without_a_memory_it_is_a_product(shape):
    rng = np.random.default_rng(5)
    inputs = tf.constant(rng.normal(size=shape))
    kernel = tf.constant(rng.normal(size=(D, N * H)))
    weights = rng.normal(size=(N, *shape[:-1], H))

    def differentiated(function):
        with tf.GradientTape() as tape:
            tape.watch([inputs, kernel])
            outputs = function(inputs, kernel)
            loss = tf.reduce_sum(outputs * weights)
        return [outputs, *tape.gradient(loss, [inputs, kernel])]

    expected = differentiated(
        lambda inputs, kernel: tf.einsum(
            "...d,dnh->n...h", inputs, tf.reshape(kernel, (D, N, H))
        )
    )
    for training in (False, True):
        values = differentiated(
            functools.partial(project_to_heads, num_heads=N, training=training)
        )
        for value, right in zip(values, expected, strict=True):
            np.testing.assert_allclose(value, right, atol=1e-12)
