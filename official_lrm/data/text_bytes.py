"""What every tokenizer of bytes shares: its input, checked."""

import numpy as np


def as_bytes(data) -> bytes:
    """Returns a text as bytes.

    Args:
        data: bytes-like, or a str (encoded as UTF-8).

    Returns:
        bytes; `data` itself if it is that.

    Raises:
        TypeError: `data` is neither bytes-like nor str.
    """
    if isinstance(data, str):
        return data.encode("utf-8")
    if isinstance(data, (bytearray, memoryview)):
        # A view of something writable would change under the caller.
        return bytes(data)
    if not isinstance(data, bytes):
        raise TypeError(f"data must be bytes or str, got {type(data).__name__}")
    return data


def as_ids(ids, vocab_size) -> bytes:
    """Returns token ids below 256 as the bytes of a uint8 array.

    Args:
        ids: integers [N] of any dtype (array, tensor or sequence).
        vocab_size: int <= 256, the number of ids.

    Returns:
        bytes of length N.

    Raises:
        ValueError: `ids` is not one-dimensional or not of integers, or an
            id is outside [0, vocab_size).
    """
    ids = np.asarray(ids)
    if ids.ndim != 1:
        raise ValueError(f"ids must be one-dimensional, got shape {ids.shape}")
    # An empty list arrives as float64 [0], which is no mistake.
    if ids.size and not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"ids must be integers, got dtype {ids.dtype}")
    check_range(ids, vocab_size, "id", "index")
    return ids.astype(np.uint8).tobytes()


def check_range(values, vocab_size, what, where):
    """Refuses values outside [0, vocab_size), naming the first one.

    Args:
        values: integer array [N].
        vocab_size: int.
        what: what a value is, for the error.
        where: what its index is, for the error.

    Raises:
        ValueError: naming the first such value and its index.
    """
    if not values.size:
        return
    # min and max first: no mask the size of a corpus if all is well.
    if values.min() >= 0 and values.max() < vocab_size:
        return
    index = int(np.argmax((values < 0) | (values >= vocab_size)))
    raise ValueError(
        f"{what} {int(values[index])} at {where} {index} is outside the "
        f"vocabulary; allowed are 0 to {vocab_size - 1} "
        f"(vocab_size={vocab_size})"
    )
