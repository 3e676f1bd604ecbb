"""What the machine can do at the most, at this moment."""

import time

import tensorflow as tf

_SIZE = 2048


def matrix_product_rate(dtype) -> float:
    """FLOP/s of a product of two square matrices of 2048 rows.

    Args:
        dtype: "float32", "bfloat16", or a Keras dtype policy of that name.
    """
    dtype = tf.as_dtype(dtype.removeprefix("mixed_"))
    matrix = tf.cast(tf.random.stateless_normal([_SIZE, _SIZE], (1, 2)), dtype)
    _product(matrix)
    start = time.perf_counter()
    _product(matrix).numpy()
    return 2 * _SIZE**3 / (time.perf_counter() - start)


@tf.function
def _product(matrix):
    # One number comes back, not the matrix.
    return tf.matmul(matrix, matrix)[0, 0]


def memory_read_rate() -> float:
    """Bytes per second, of a sum over 256 MiB on all cores."""
    numbers = tf.ones([2**26])
    tf.reduce_sum(numbers).numpy()
    start = time.perf_counter()
    tf.reduce_sum(numbers).numpy()
    return 2**28 / (time.perf_counter() - start)
