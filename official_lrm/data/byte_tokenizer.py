"""Byte-level tokenizer: a token id is the byte's value."""

import numpy as np

from official_lrm.data.text_bytes import check_range, ids_of_bytes
from official_lrm.data.text_tokenizer import TextTokenizer

_LARGEST_VOCABULARY = 256


class ByteTokenizer(TextTokenizer):
    """Maps bytes to ids and back; the id of a byte is its value.

    There is nothing to learn and nothing to store, any text round-trips, and
    the loss in nats per token divided by ln 2 is bits per byte.

        before: "né\\n"                    (str; UTF-8 is b"n\\xc3\\xa9\\n")
        after:  [110, 195, 169, 10]       (uint8 [4])

    The ids of `bytes` are a read-only view without any copy.

    Args:
        vocab_size: number of ids, from 1 to 256. Below 256 the tokenizer
            refuses bytes that the vocabulary has no id for (128 for ASCII).

    Raises:
        ValueError: `vocab_size` is not an integer from 1 to 256.
    """

    type = "bytes"
    unit = "character"

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
        super().__init__([bytes([value]) for value in range(vocab_size)])

    def get_config(self):
        """Returns what `tokenizer_from_config` takes, a JSON-ready dict."""
        return {"type": self.type, "vocab_size": self.vocab_size}

    def _encode(self, data):
        ids = np.frombuffer(data, dtype=np.uint8)
        check_range(ids, self.vocab_size, "byte", "offset")
        return ids

    def _decode(self, ids):
        return ids.astype(np.uint8).tobytes()

    def _encode_tensor(self, text):
        return ids_of_bytes(text, self.decode(range(self.vocab_size)))
