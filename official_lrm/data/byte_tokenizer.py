"""Byte-level tokenizer: a token id is the byte's value."""

import numpy as np

from official_lrm.data.text_bytes import as_bytes, as_ids, check_range

_LARGEST_VOCABULARY = 256


class ByteTokenizer:
    """Maps bytes to ids and back; the id of a byte is its value.

    There is nothing to learn and nothing to store, any text round-trips, and
    the loss in nats per token divided by ln 2 is bits per byte.

        before: "né\\n"                    (str; UTF-8 is b"n\\xc3\\xa9\\n")
        after:  [110, 195, 169, 10]       (uint8 [4])

    Args:
        vocab_size: number of ids, from 1 to 256. Below 256 the tokenizer
            refuses bytes that the vocabulary has no id for (128 for ASCII).

    Raises:
        ValueError: `vocab_size` is not an integer from 1 to 256.
    """

    def __init__(self, vocab_size=_LARGEST_VOCABULARY):
        is_integer = isinstance(vocab_size, (int, np.integer))
        if (
            not is_integer
            or isinstance(vocab_size, bool)
            or not 1 <= vocab_size <= _LARGEST_VOCABULARY
        ):
            raise ValueError(
                f"vocab_size must be an integer from 1 to "
                f"{_LARGEST_VOCABULARY}, got {vocab_size!r}"
            )
        self._vocab_size = int(vocab_size)

    @property
    def vocab_size(self):
        """int, the number of ids; every id is in [0, vocab_size)."""
        return self._vocab_size

    def encode(self, data):
        """Returns the ids of `data`.

        Args:
            data: bytes-like, or a str (encoded as UTF-8).

        Returns:
            uint8 [N], one id a byte. It is uint8 and not int32 because a
            corpus stays in memory: 100 MB of text remain 100 MB. For `bytes`
            it is a read-only view without any copy. The lanes hand out int32.

        Raises:
            TypeError: `data` is neither bytes-like nor str.
            ValueError: a byte is outside [0, vocab_size).
        """
        ids = np.frombuffer(as_bytes(data), dtype=np.uint8)
        check_range(ids, self._vocab_size, "byte", "offset")
        return ids

    def decode(self, ids):
        """Returns the bytes of `ids`; the inverse of `encode`.

        Args:
            ids: integers [N] of any dtype (array, tensor or sequence).

        Returns:
            bytes of length N.

        Raises:
            ValueError: `ids` is not one-dimensional or not of integers, or
                an id is outside [0, vocab_size).
        """
        return as_ids(ids, self._vocab_size)

    def get_config(self):
        """Returns what `tokenizer_from_config` takes, a JSON-ready dict."""
        return {"type": "bytes", "vocab_size": self._vocab_size}
