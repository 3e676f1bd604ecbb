"""The tokens of a text, held once in the smallest integer type."""

import numpy as np

_INT32_MAX = np.iinfo(np.int32).max


class TokenArray:
    """Checked token ids, in memory or in a file.

        before: int64 [5, 0, 255]   24 bytes
        after:  uint8 [5, 0, 255]    3 bytes

    Args:
        tokens: integers [N], each from 0 to 2**31 - 1. An array that has the
            smallest type already is not copied; do not change it afterwards.
            A memory-mapped one (`tokenize_split` makes them) stays in its
            file and is not read for checks.

    Raises:
        ValueError: `tokens` is not one-dimensional, not of integers, or
            holds a value that is no int32 token id.
    """

    def __init__(self, tokens):
        mapped = isinstance(tokens, np.memmap)
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
        self._values = tokens if mapped else _compact(tokens)

    def __len__(self):
        return len(self._values)

    @property
    def values(self):
        """uint8, uint16 or int32 [N], not to be changed."""
        return self._values

    def take(self, indices):
        """Returns the tokens at `indices` as int32, in their shape."""
        return self._values[indices].astype(np.int32)


def _compact(tokens):
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
    return np.ascontiguousarray(tokens, dtype=smallest_dtype(largest))


def smallest_dtype(largest):
    """The smallest integer type for ids from 0 to `largest`."""
    return next(
        np.dtype(dtype)
        for dtype in (np.uint8, np.uint16, np.int32)
        if largest <= np.iinfo(dtype).max
    )
