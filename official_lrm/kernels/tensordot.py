"""Products over axes that stay what they are."""

import math
import string

import keras
from keras import ops

from official_lrm.kernels.backends import compiled_for_tpus


def tensordot(first, second, axes):
    """`ops.tensordot`, its portable twin, without transposed copies.

    XLA gets the axes as they are. From matrices that they were joined to it
    made copies of kernels, cast and in another layout, for every product.

    TensorFlow's own runtime multiplies matrices alone, and `ops.tensordot`
    transposes there what does not end or begin with the axes that are summed
    over. Here the product reads such a matrix the other way round.

    Args:
        first: a tensor.
        second: a tensor of the same dtype.
        axes: (axes of `first`, axes of `second`), the axes to sum over. Those
            of a tensor are its first ones or its last ones, in order.

    Returns:
        A tensor of the other axes of `first`, then those of `second`.

    Raises:
        ValueError: on TensorFlow's own runtime, for axes in the middle.
    """
    if keras.backend.backend() != "tensorflow":
        return ops.tensordot(first, second, axes)
    import tensorflow as tf

    if compiled_for_tpus():
        # Unlike ops.tensordot and ops.einsum it joins no axes.
        return tf.einsum(_equation(first, second, axes), first, second)

    first, first_leads, first_shape = _matrix(first, axes[0])
    second, second_leads, second_shape = _matrix(second, axes[1])
    product = tf.matmul(
        first,
        second,
        transpose_a=first_leads,
        transpose_b=not second_leads,
    )
    return ops.reshape(product, (*first_shape, *second_shape))


def _equation(first, second, axes):
    rank = len(first.shape)
    names = string.ascii_letters[: rank + len(second.shape)]
    left, right = list(names[:rank]), list(names[rank:])
    for axis, other in zip(*axes, strict=True):
        right[other] = left[axis]
    others = [name for name in left + right if (left + right).count(name) == 1]
    return f"{''.join(left)},{''.join(right)}->{''.join(others)}"


def _matrix(tensor, axes):
    # The matrix, whether the axes to sum over are its rows, and the shape of
    # the others.
    shape, axes = ops.shape(tensor), tuple(axes)
    count, rank = len(axes), len(shape)
    if axes == tuple(range(count)):
        others = shape[count:]
        return ops.reshape(tensor, (-1, math.prod(others))), True, others
    if axes != tuple(range(rank - count, rank)):
        raise ValueError(
            f"axes must be the first or the last of {rank}; got {axes}."
        )
    others, summed = shape[: rank - count], shape[-count:]
    return ops.reshape(tensor, (-1, math.prod(summed))), False, others
