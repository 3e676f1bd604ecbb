"""Masks of dropout on TensorFlow."""

import math

import keras

# An element's random number has 16 bits.
_LEVELS = 2**16


def dropout_mask(shape, rate: float, seed, dtype):
    """1 where an element is kept, 0 where it is dropped.

    Two elements share a random number of 32 bits, and a product with the mask
    takes a fourth of a selection's time: together half of what
    keras.random.dropout takes, its portable twin.

    Args:
        shape: of the mask; sizes may be scalar int32 tensors.
        rate: probability of 0, rounded to a multiple of 2^-16; below 1.
        seed: [2] int32 tensor.
        dtype: of the mask.

    Returns:
        A tensor, or None where the backend is not TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    size = math.prod(shape)
    bits = tf.random.stateless_uniform(
        [(size + 1) // 2], seed, minval=None, maxval=None, dtype=tf.int32
    )
    bits = tf.reshape(tf.bitcast(bits, tf.uint16), [-1])
    if not isinstance(size, int) or size % 2:
        bits = bits[:size]
    dropped = min(round(rate * _LEVELS), _LEVELS - 1)
    kept = tf.reshape(bits, shape) >= tf.constant(dropped, tf.uint16)
    return tf.cast(kept, dtype)
