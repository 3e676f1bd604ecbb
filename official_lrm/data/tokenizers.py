"""Byte-level tokenizer: a token id is the byte's value."""

import json

import numpy as np

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
        if isinstance(data, str):
            data = data.encode("utf-8")
        elif isinstance(data, (bytearray, memoryview)):
            # A view of something writable would change under the caller.
            data = bytes(data)
        elif not isinstance(data, bytes):
            raise TypeError(
                f"data must be bytes or str, got {type(data).__name__}"
            )
        ids = np.frombuffer(data, dtype=np.uint8)
        self._check(ids, "byte", "offset")
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
        ids = np.asarray(ids)
        if ids.ndim != 1:
            raise ValueError(
                f"ids must be one-dimensional, got shape {ids.shape}"
            )
        # An empty list arrives as float64 [0], which is no mistake.
        if ids.size and not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(f"ids must be integers, got dtype {ids.dtype}")
        self._check(ids, "id", "index")
        return ids.astype(np.uint8).tobytes()

    def get_config(self):
        """Returns what `tokenizer_from_config` takes, a JSON-ready dict."""
        return {"type": "bytes", "vocab_size": self._vocab_size}

    def _check(self, values, what, where):
        """Refuses values outside the vocabulary, naming the first one."""
        if not values.size:
            return
        # min and max first: no mask the size of a corpus if all is well.
        if values.min() >= 0 and values.max() < self._vocab_size:
            return
        index = int(np.argmax((values < 0) | (values >= self._vocab_size)))
        raise ValueError(
            f"{what} {int(values[index])} at {where} {index} is outside the "
            f"vocabulary; allowed are 0 to {self._vocab_size - 1} "
            f"(vocab_size={self._vocab_size})"
        )


def tokenizer_from_config(config):
    """Builds a tokenizer from its `get_config` dict.

    Args:
        config: a dict with the key "type".

    Returns:
        A ByteTokenizer.

    Raises:
        ValueError: the dict describes no tokenizer of this release.
    """
    if not isinstance(config, dict) or config.get("type") != "bytes":
        raise ValueError(
            f"tokenizer config must be a dict of type 'bytes', got {config!r}"
        )
    return ByteTokenizer(config.get("vocab_size"))


def load_tokenizer(path):
    """Reads a tokenizer from the JSON file that a preset or export holds.

    Args:
        path: the file.

    Returns:
        A ByteTokenizer.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged.
    """
    with open(path, encoding="utf-8") as stream:
        try:
            config = json.load(stream)
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
    try:
        return tokenizer_from_config(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
