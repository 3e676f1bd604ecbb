"""Projections to heads and back, and what gets a gradient."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.layers.project_to_heads import (
    project_from_heads,
    project_to_heads,
)

B, M, T, D, N, H = 2, 5, 3, 7, 4, 11


def random_tensors(*shapes):
    rng = np.random.default_rng(3)
    return [tf.constant(rng.normal(size=shape)) for shape in shapes]


def differentiated(function, tensors, weights):
    """What a function gives, and the gradients of a weighted sum of it."""
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        outputs = function(*tensors)
        loss = tf.reduce_sum(outputs * weights)
    return [
        outputs,
        *tape.gradient(loss, tensors, unconnected_gradients="zero"),
    ]


def assert_same(values, expected):
    for value, right in zip(values, expected, strict=True):
        np.testing.assert_allclose(value, right, atol=1e-12)


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("is_for_tpus", [False, True])
def test_it_is_a_projection_whose_memory_gets_no_gradient(
    request, in_graph, is_for_tpus
):
    *tensors, weights = random_tensors(
        (B, M, D), (B, T, D), (N, H, D), (N, B, M + T, H)
    )

    def plain(memory, inputs, kernel):
        context = tf.concat([tf.stop_gradient(memory), inputs], axis=1)
        return tf.einsum("bkd,nhd->nbkh", context, kernel)

    def trained(memory, inputs, kernel):
        return project_to_heads(inputs, kernel, memory, training=True)

    expected = differentiated(plain, tensors, weights)
    if is_for_tpus:
        request.getfixturevalue("for_tpus")
    run = tf.function(differentiated) if in_graph else differentiated
    assert_same(run(trained, tensors, weights), expected)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("lanes", [(T,), (B, T)])
def test_without_a_memory_it_is_a_product(lanes, training):
    *tensors, weights = random_tensors((*lanes, D), (N, H, D), (N, *lanes, H))
    project = functools.partial(project_to_heads, training=training)
    expected = differentiated(
        lambda inputs, kernel: tf.einsum("...d,nhd->n...h", inputs, kernel),
        tensors,
        weights,
    )
    assert_same(differentiated(project, tensors, weights), expected)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("is_for_tpus", [False, True])
def test_back_from_heads(request, is_for_tpus, training):
    *tensors, weights = random_tensors((N, B, T, H), (N, H, D), (B, T, D))
    expected = differentiated(
        lambda heads, kernel: tf.einsum("nbth,nhd->btd", heads, kernel),
        tensors,
        weights,
    )
    if is_for_tpus:
        request.getfixturevalue("for_tpus")
    project = functools.partial(project_from_heads, training=training)
    assert_same(differentiated(project, tensors, weights), expected)
