"""Dropout whose mask is a function of its seed alone."""

import keras
from keras import ops

from official_lrm.kernels import dropout_mask

# An odd constant spreads the sites over the 32-bit space, so that callers who
# count the second word up by one a step do not meet another site's seeds.
_SITE_STRIDE = 0x9E3779B1 - 2**32


class _FixedSeed(keras.random.SeedGenerator):
    """Hands a seed tensor to keras.random, which takes no tensors."""

    def __init__(self, seed):  # No state: nothing to track, nothing to save.
        self._seed = seed

    def next(self, ordered=True):
        del ordered
        return self._seed


def stateless_dropout(inputs, rate: float, seed, site: int):
    """Drops elements with probability `rate` and scales up the others.

    The mask depends on (seed, site, shape) and on nothing else: a recomputed
    or resumed step draws the same one. On TensorFlow the rate is rounded to a
    multiple of 2^-16.

    Args:
        inputs: float tensor of any shape.
        rate: probability from 0 to 1 of dropping an element; 0 = off.
        seed: [2] integer tensor, another one for each step and replica.
        site: which of the model's dropouts this is.

    Returns:
        A tensor of the shape and dtype of `inputs`.
    """
    if not rate:
        return inputs
    # jax.random takes uint32 keys; TensorFlow's stateless ops int32 seeds.
    if keras.backend.backend() == "jax":
        seed = ops.cast(seed, "uint32")
        offset = ops.array([site * _SITE_STRIDE % 2**32, 0], dtype="uint32")
    else:
        seed = ops.cast(seed, "int32")
        offset = (site * _SITE_STRIDE + 2**31) % 2**32 - 2**31
        offset = ops.array([offset, 0], dtype="int32")
    seed = seed + offset
    if rate < 1:
        mask = dropout_mask(ops.shape(inputs), rate, seed, inputs.dtype)
        if mask is not None:
            return inputs * (mask * (1 / (1 - rate)))
    return keras.random.dropout(inputs, rate, seed=_FixedSeed(seed))
