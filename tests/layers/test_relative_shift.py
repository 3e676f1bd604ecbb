"""Scores by distance as scores by key, and back."""

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.layers.relative_shift import relative_shift, relative_unshift

# (T, M)
SIZES = [(3, 5), (5, 3), (3, 0), (1, 5), (1, 0), (2, 1)]


@pytest.mark.parametrize(("num_queries", "span"), SIZES)
def test_a_naive_double_loop(num_queries, span):
    num_keys = num_queries + span
    scores = np.random.default_rng(2).normal(
        size=(2, 7, num_queries, num_keys + 1)
    )
    shifted = np.array(relative_shift(scores))
    assert shifted.shape == (2, 7, num_queries, num_keys)
    for i in range(num_queries):
        for j in range(num_keys):
            distance = i + span - j
            if distance >= 0:  # Beyond, the result is meaningless.
                column = num_keys - distance
                assert np.array_equal(
                    shifted[..., i, j], scores[..., i, column]
                )


def test_the_example_of_the_docstring():
    scores = np.array([[99, 2, 1, 0], [99, 12, 11, 10]])
    shifted = np.array(relative_shift(scores))
    assert shifted[0, :2].tolist() == [1, 0]
    assert shifted[1].tolist() == [12, 11, 10]


@pytest.mark.parametrize(("num_queries", "span"), SIZES)
def test_back_is_the_transpose(num_queries, span):
    rng = np.random.default_rng(3)
    num_keys = num_queries + span
    scores = rng.normal(size=(7, num_queries, num_keys + 1))
    scores[..., 0] = 0
    gradients = rng.normal(size=(7, num_queries, num_keys))
    gradients *= np.tril(np.ones(gradients.shape), k=span)
    there = np.sum(np.array(relative_shift(scores)) * gradients)
    back = np.array(relative_unshift(gradients))
    assert not np.any(back[..., 0])
    assert np.sum(scores * back) == pytest.approx(there, rel=1e-12)


def test_sizes_may_be_tensors():
    @tf.function(input_signature=[tf.TensorSpec([7, None, None, None])])
    def shift(scores):
        return relative_shift(scores)

    scores = np.random.default_rng(2).normal(size=(7, 2, 3, 9))
    scores = scores.astype("float32")
    assert np.array_equal(shift(scores), relative_shift(scores))
