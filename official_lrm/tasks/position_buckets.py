"""Sums by how many tokens a lane has seen, in buckets of powers of two.

The position of a target is that of its input, counted from 0 where the lane
or document begins: the number of tokens that stand before the input. Bucket 0
is position 0, bucket k > 0 the positions from 2^(k-1) to 2^k - 1.

    position   0   1   2   3   4   5   6   7   8
    bucket     0   1   2   2   3   3   3   3   4
"""

import tensorflow as tf

#: Enough for every int32 position.
NUM_BUCKETS = 32

_POWERS = tuple(2**power for power in range(NUM_BUCKETS - 1))


def bucket_bounds(bucket) -> tuple[int, int]:
    """The first and the last position of a bucket.

    Args:
        bucket: int from 0 to NUM_BUCKETS - 1.
    """
    return (2**bucket // 2, 2**bucket - 1) if bucket else (0, 0)


def sum_by_position(values, position):
    """Sums values in the buckets of their positions.

    Args:
        values: [B, T] float64.
        position: [B] int32, that of the first of the T.

    Returns:
        [NUM_BUCKETS] float64.
    """
    seen = position[:, None] + tf.range(tf.shape(values)[1])  # [B, T]
    buckets = tf.reduce_sum(
        tf.cast(seen[..., None] >= tf.constant(_POWERS), tf.int32), axis=-1
    )
    return tf.math.unsorted_segment_sum(values, buckets, NUM_BUCKETS)
