"""Sums by position against hand-counted buckets."""

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.tasks.position_buckets import (
    NUM_BUCKETS,
    bucket_bounds,
    sum_by_position,
)


def test_bounds_are_powers_of_two_without_gaps():
    bounds = [bucket_bounds(bucket) for bucket in range(NUM_BUCKETS)]
    assert bounds[:5] == [(0, 0), (1, 1), (2, 3), (4, 7), (8, 15)]
    for (_, last), (first, _) in zip(bounds[:-1], bounds[1:], strict=True):
        assert first == last + 1
    assert bounds[-1][1] == 2**31 - 1


def test_sums_by_hand():
    # Given one lane at position 0 and one at position 6,
    values = np.array(
        [[1, 10, 100, 1000, 10000], [2, 20, 200, 2000, 20000]], np.float64
    )
    # when summed, then 0 | 1 | 2 3 | 4, and 6 7 | 8 9 10.
    sums = sum_by_position(tf.constant(values), tf.constant([0, 6])).numpy()
    assert sums.dtype == np.float64
    assert sums[:6].tolist() == [1, 10, 1100, 10022, 22200, 0]
    assert not sums[5:].any()


@pytest.mark.parametrize("bucket", range(NUM_BUCKETS))
def test_first_and_last_of_a_bucket_are_in_it(bucket):
    for position in bucket_bounds(bucket):
        sums = sum_by_position(
            tf.ones([1, 1], tf.float64), tf.constant([position], tf.int32)
        )
        assert np.flatnonzero(sums).tolist() == [bucket]
