"""The tokens of a text, held once in the smallest integer type."""

import numpy as np

_INT32_MAX = np.iinfo(np.int32).max


class TokenArray:
    """Checked token ids in memory, for NumPy and for tf.data.

        before: int64 [5, 0, 255]   24 bytes
        after:  uint8 [5, 0, 255]    3 bytes

    Args:
        tokens: integers [N], each from 0 to 2**31 - 1. An array that has the
            smallest type already is not copied; do not change it afterwards.

    Raises:
        ValueError: `tokens` is not one-dimensional, not of integers, or
            holds a value that is no int32 token id.
    """

    def __init__(self, tokens):
        tokens = np.asarray(tokens)
        if tokens.ndim != 1:
            raise ValueError(
                f"tokens must be a one-dimensional integer array, got shape "
                f"{tokens.shape} of dtype {tokens.dtype}"
            )
        # An empty list arrives as float64 [0]; its length is checked later.
        if tokens.size and not np.issubdtype(tokens.dtype, np.integer):
            raise ValueError(
                f"tokens must be integers, got dtype {tokens.dtype}"
            )
        smallest, largest = 0, 0
        if tokens.size:
            smallest, largest = int(tokens.min()), int(tokens.max())
        if smallest < 0 or largest > _INT32_MAX:
            wrong = smallest if smallest < 0 else largest
            index = int(np.argmax(tokens == wrong))
            raise ValueError(
                f"tokens must be from 0 to {_INT32_MAX}, got {wrong} at "
                f"index {index}"
            )
        dtype = next(
            dtype
            for dtype in (np.uint8, np.uint16, np.int32)
            if largest <= np.iinfo(dtype).max
        )
        self._values = np.ascontiguousarray(tokens, dtype=dtype)
        self._tensor = None

    def __len__(self):
        return len(self._values)

    def take(self, indices):
        """Returns the tokens at `indices` as int32, in their shape."""
        return self._values[indices].astype(np.int32)

    def tensor(self):
        """Returns the tokens as an eager tensor [N] of the small type.

        A tf.data function that closes over it captures it: it is handed to
        the function at run time and is never written into a graph, whose
        limit of 2 GB a large corpus would break. All datasets share it.
        """
        import tensorflow as tf

        if self._tensor is None:
            # Lifted out of any function that is being traced, where it would
            # become a constant of the graph; and kept off the accelerator,
            # where eager tensors land otherwise.
            with tf.init_scope(), tf.device("CPU:0"):
                self._tensor = tf.constant(self._values)
        return self._tensor
