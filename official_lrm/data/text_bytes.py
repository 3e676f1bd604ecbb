"""What tokenizers share: their inputs, checked and cut."""

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


def as_ids(ids, vocab_size) -> np.ndarray:
    """Returns token ids as an array, once they are found to be ids.

    Args:
        ids: integers [N] of any dtype (array, tensor or sequence).
        vocab_size: int, the number of ids.

    Returns:
        Integer array [N].

    Raises:
        ValueError: `ids` is not one-dimensional or not of integers, or an
            id is outside [0, vocab_size).
    """
    ids = np.asarray(ids)
    if ids.ndim != 1:
        raise ValueError(f"ids must be one-dimensional, got shape {ids.shape}")
    # An empty list arrives as float64 [0], which is no mistake.
    if not ids.size:
        return ids.astype(np.int32)
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"ids must be integers, got dtype {ids.dtype}")
    check_range(ids, vocab_size, "id", "index")
    return ids


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


def pieces_of(pieces):
    """Yields a text's pieces as bytes.

    Args:
        pieces: iterable of bytes (or str, encoded as UTF-8), the text cut
            anywhere: `[text]`, or an open file that is read in parts.

    Yields:
        bytes.

    Raises:
        TypeError: `pieces` is a text itself, whose items are characters, or
            no iterable of bytes.
    """
    if isinstance(pieces, (str, bytes, bytearray, memoryview)):
        kind = type(pieces).__name__
        raise TypeError(
            f"pieces must be an iterable of bytes, such as [text], got {kind}"
        )
    for piece in pieces:
        yield as_bytes(piece)


def blocks(pieces, separators, size, before=False):
    """Cuts a text anew, at separators only.

        before: [b"the ca", b"t sat on"]
        after:  [b"the ", b"cat sat ", b"on"]      (separators b" ")

    Memory is that of a few blocks, whatever the pieces are, unless a stretch
    without any separator is longer.

    Args:
        pieces: iterable of bytes, as for `pieces_of`.
        separators: bytes; a text is cut at any of these byte values.
        size: bytes of a block. It is longer where there is no separator.
        before: whether to cut before a separator and not after it.

    Yields:
        bytes, none empty; joined they are the text.

    Raises:
        TypeError: as `pieces_of`.
    """
    held = []
    for piece in pieces_of(pieces):
        for start in range(0, len(piece), size):
            part = piece[start : start + size]
            last = max(part.rfind(separator) for separator in separators)
            if last >= 0:
                cut = last if before else last + 1
                block = b"".join([*held, part[:cut]])
                if block:
                    yield block
                held = []
                part = part[cut:]
            if part:
                held.append(part)
    if held:
        yield b"".join(held)


def ids_of_bytes(text, symbols):
    """The place of each byte of texts among `symbols`, in the graph.

    Args:
        text: string tensor [B].
        symbols: bytes, distinct.

    Returns:
        tf.RaggedTensor int32 [B, None].

    Raises:
        tf.errors.InvalidArgumentError: a byte is none of the symbols.
    """
    import tensorflow as tf

    table = np.full(256, -1, np.int32)
    table[list(symbols)] = range(len(symbols))
    # `decode_raw` takes texts of one length, and so one text.
    values = tf.io.decode_raw(tf.strings.reduce_join(text), tf.uint8)
    ids = tf.gather(tf.constant(table), tf.cast(values, tf.int32))
    known = tf.debugging.Assert(
        tf.reduce_all(ids >= 0),
        [
            f"text must hold the {len(symbols)} symbols of the vocabulary "
            "only; got byte",
            tf.boolean_mask(values, ids < 0)[:1],
        ],
    )
    # Eager mode has checked and returns None.
    with tf.control_dependencies([] if known is None else [known]):
        ids = tf.identity(ids)
    # int64, as the other tokenizers' operations give.
    lengths = tf.cast(tf.strings.length(text), tf.int64)
    return tf.RaggedTensor.from_row_lengths(ids, lengths, validate=False)
