"""norm_dense is a layer norm and a dense layer, in values and gradients."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from official_lrm.layers.norm_dense import norm_dense

EPSILON = 1e-3


def plain(inputs, gamma, beta, kernel, bias):
    normed = ops.layer_normalization(inputs, gamma, beta, -1, EPSILON)
    return normed, ops.matmul(normed, kernel) + bias


def fused(inputs, gamma, beta, kernel, bias):
    return norm_dense(inputs, gamma, beta, kernel, bias, EPSILON, training=True)


def arguments(dtype, lanes=(2, 5), hidden_size=6, units=9):
    rng = np.random.default_rng(11)
    shapes = [
        (*lanes, hidden_size),
        (hidden_size,),
        (hidden_size,),
        (hidden_size, units),
        (units,),
    ]
    return [tf.cast(rng.normal(size=shape), dtype) for shape in shapes]


def outputs_and_gradients(function, tensors):
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        outputs = function(*tensors)
        # A gradient that is another one for each element.
        loss = sum(ops.sum(ops.sin(3 * output)) for output in outputs)
    return outputs, tape.gradient(loss, tensors)


@pytest.mark.parametrize("in_graph", [False, True])
def test_it_is_a_norm_and_a_dense_layer(in_graph):
    wrap = tf.function if in_graph else (lambda function: function)
    tensors = arguments("float64")
    outputs, gradients = outputs_and_gradients(wrap(fused), tensors)
    expected, expected_gradients = outputs_and_gradients(plain, tensors)
    for ours, theirs in zip(
        [*outputs, *gradients], [*expected, *expected_gradients], strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


def test_either_result_alone_has_a_gradient():
    tensors = arguments("float64")
    for index in range(2):
        _, ours = outputs_and_gradients(
            lambda *x, i=index: [fused(*x)[i]], tensors
        )
        _, theirs = outputs_and_gradients(
            lambda *x, i=index: [plain(*x)[i]], tensors
        )
        for gradient, expected in zip(ours[:3], theirs[:3], strict=True):
            np.testing.assert_allclose(
                gradient, expected, rtol=1e-11, atol=1e-12
            )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_dtypes_stay(dtype):
    tensors = arguments(dtype)
    outputs, gradients = outputs_and_gradients(fused, tensors)
    assert {x.dtype.name for x in [*outputs, *gradients]} == {dtype}


def test_statistics_are_not_of_half_precision():
    # Given rows far from 0, whose mean bfloat16 would round by 0.5,
    inputs, gamma, beta, kernel, bias = arguments("float32")
    inputs = tf.cast(inputs + 128, "bfloat16")
    normed, _ = fused(
        inputs,
        tf.ones_like(gamma),
        tf.zeros_like(beta),
        tf.cast(kernel, "bfloat16"),
        tf.cast(bias, "bfloat16"),
    )
    # then means are 0 to what the results round to.
    assert np.max(np.abs(np.mean(tf.cast(normed, "float32"), axis=-1))) < 5e-3


def test_training_changes_no_value():
    tensors = arguments("float32")
    for ours, theirs in zip(
        fused(*tensors), norm_dense(*tensors, EPSILON), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
