"""A product of matrices, less a number of each row."""

import keras
from keras import ops

from official_lrm.kernels.backends import compiled_for_tpus


def product_less(rows, columns, subtrahend):
    """`rows . columns^T - subtrahend`.

    XLA fuses the two. On TensorFlow's own runtime a product of bfloat16 takes
    `-subtrahend . 1` along, as two more entries of the sum over the head's
    width, of which one is 0 to keep it even: one pass less over a matrix that
    is much larger than its factors, and one rounding less. In float32 the
    wider product takes longer than the pass.

    Args:
        rows: [..., Q, H].
        columns: [..., K, H] of the same dtype.
        subtrahend: [..., Q, 1] of the same dtype.

    Returns:
        [..., Q, K].
    """
    dtype = keras.backend.standardize_dtype(rows.dtype)
    if compiled_for_tpus() or dtype != "bfloat16":
        return ops.matmul(rows, ops.swapaxes(columns, -1, -2)) - subtrahend
    nothing = [(0, 0)] * (len(rows.shape) - 1)
    rows = ops.concatenate([rows, -subtrahend], axis=-1)
    rows = ops.pad(rows, (*nothing, (0, 1)))
    columns = ops.pad(columns, (*nothing, (0, 2)), constant_values=1)
    return ops.matmul(rows, ops.swapaxes(columns, -1, -2))
