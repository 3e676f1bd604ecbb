"""Rows of a buffer, overwritten in place.

Backends' tensors are values: writing a row copies all others. TensorFlow alone
has an operation that writes into the tensor itself; 2304 keys and values of 12
layers then cost nothing to keep, where copies took 13 of 31 ms a token.
"""

import keras
from keras import ops


def empty_rows(shape, dtype):
    """Rows that nobody else holds, to begin a buffer with.

    Args:
        shape: of the rows, integers or scalar integer tensors.
        dtype: name of the dtype.

    Returns:
        Zeros. On TensorFlow, what is concatenated from them is never folded
        into a constant of the graph, which `set_rows` would overwrite.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.raw_ops.Empty(
            shape=tf.stack(shape), dtype=tf.as_dtype(dtype), init=True
        )
    return ops.zeros(shape, dtype=dtype)


def set_rows(buffer, rows, values):
    """Overwrites rows of a buffer.

    Args:
        buffer: [R, ...]. The caller's own (see `empty_rows`), and not to be
            used after the call: on TensorFlow it is the result.
        rows: [S] int32, each at most once.
        values: [S, ...].

    Returns:
        [R, ...].
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.raw_ops.InplaceUpdate(x=buffer, i=rows, v=values)
    return set_rows_portable(buffer, rows, values)


def set_rows_portable(buffer, rows, values):
    """As `set_rows`, on any backend; leaves `buffer` as it was."""
    return ops.scatter_update(buffer, rows[:, None], values)


def take_rows(values, indices):
    """`values[indices]`, without the test for negative indices.

    Keras's `take` makes one on TensorFlow, which costs as much as the rest.

    Args:
        values: [R, ...].
        indices: int32 of any shape, from 0 to R - 1.

    Returns:
        [*indices.shape, ...].
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather(values, indices)
    return ops.take(values, indices, axis=0)
