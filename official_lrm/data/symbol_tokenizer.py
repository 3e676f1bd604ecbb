"""Tokenizer of the byte values that occur in a text."""

import reprlib

import numpy as np

from official_lrm.data.text_bytes import as_bytes, as_ids

# Bytes counted at once: NumPy counts 8-byte integers, eight times the text.
_COUNTED_AT_ONCE = 2**20


class SymbolTokenizer:
    """Maps the byte values that occur in a text to ids, the commonest first.

    A token is a byte, as with ByteTokenizer, so the loss in nats per token
    divided by ln 2 is bits per byte; only the ids differ, and there are none
    for bytes that do not occur. A text with any other byte is refused: there
    is no "unknown".

        before: SymbolTokenizer.learn(b"banana\\n").encode(b"nab")
        after:  [1, 0, 2]        (uint8 [3]; the symbols are a, n, b, \\n)

    The order is that of Dai et al. (2019): by falling count, and of equal
    counts the symbol that occurs first (`Counter.most_common`).

    Their published models of enwik8 have 204 ids and those of text8 27. What
    is known of the 204: their preparation writes a text as the numbers of its
    bytes, but a newline as a line break, and their reader splits the lines at
    white space and adds no mark for their ends. So newlines are neither
    counted nor predicted in these models, and enwik8 with them has 205
    symbols. They also count all three splits, where this counts the text it
    is given. Here every byte of the text is a token: the number of ids
    follows from the text alone, figures are of every byte, and a vocabulary
    of theirs has to be given as `symbols`.

    Args:
        symbols: the byte values in the order of their ids: a list, tuple,
            array or bytes of distinct integers from 0 to 255.

    Raises:
        ValueError: there are none, or one is no byte value or there twice.
    """

    def __init__(self, symbols):
        self._symbols = _checked(symbols)
        size = len(self._symbols)
        self._decoding = self._symbols + bytes(256 - size)
        # Where a byte has no id there are at most 255, none of them 255.
        encoding = bytearray([255] * 256)
        for index, symbol in enumerate(self._symbols):
            encoding[symbol] = index
        self._encoding = bytes(encoding)

    @classmethod
    def learn(cls, text):
        """Makes the tokenizer of the symbols of a text.

        Args:
            text: bytes-like, or a str (encoded as UTF-8).

        Returns:
            SymbolTokenizer.

        Raises:
            TypeError: `text` is neither bytes-like nor str.
            ValueError: `text` is empty.
        """
        text = as_bytes(text)
        if not text:
            raise ValueError(
                "text must hold at least one byte to learn symbols from, got "
                "none"
            )
        view = np.frombuffer(text, dtype=np.uint8)
        counts = np.zeros(256, np.int64)
        for start in range(0, len(view), _COUNTED_AT_ONCE):
            part = view[start : start + _COUNTED_AT_ONCE]
            counts += np.bincount(part, minlength=256)
        return cls(
            sorted(
                np.flatnonzero(counts).tolist(),
                key=lambda symbol: (-counts[symbol], text.index(symbol)),
            )
        )

    @property
    def vocab_size(self):
        """int, the number of ids; every id is in [0, vocab_size)."""
        return len(self._symbols)

    def encode(self, data):
        """Returns the ids of `data`.

        Args:
            data: bytes-like, or a str (encoded as UTF-8).

        Returns:
            uint8 [N], one id a byte, read-only: 100 MB of text give 100 MB.

        Raises:
            TypeError: `data` is neither bytes-like nor str.
            ValueError: a byte is not among the symbols.
        """
        data = as_bytes(data)
        # Of NumPy's ways, `take` makes the indices eight times as large.
        ids = np.frombuffer(data.translate(self._encoding), dtype=np.uint8)
        if ids.size and ids.max() >= self.vocab_size:
            offset = int(np.argmax(ids >= self.vocab_size))
            raise ValueError(
                f"byte {data[offset]} at offset {offset} is none of the "
                f"{self.vocab_size} symbols of the vocabulary"
            )
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
        return as_ids(ids, self.vocab_size).translate(self._decoding)

    def get_config(self):
        """Returns what `tokenizer_from_config` takes, a JSON-ready dict."""
        return {"type": "symbols", "symbols": list(self._symbols)}


def _checked(symbols) -> bytes:
    if isinstance(symbols, np.ndarray):
        symbols = symbols.tolist()
    if not isinstance(symbols, (list, tuple, bytes)):
        raise ValueError(
            "symbols must be a list of byte values, got "
            f"{reprlib.repr(symbols)}"
        )
    if not symbols:
        raise ValueError("symbols must hold at least one byte value, got none")
    first = {}
    for index, symbol in enumerate(symbols):
        is_integer = isinstance(symbol, int) and not isinstance(symbol, bool)
        if not is_integer or not 0 <= symbol <= 255:
            raise ValueError(
                f"symbols must be integers from 0 to 255, got "
                f"{reprlib.repr(symbol)} at index {index}"
            )
        if first.setdefault(symbol, index) != index:
            raise ValueError(
                f"symbols must be distinct, got {symbol} at index "
                f"{first[symbol]} and at index {index}"
            )
    return bytes(first)
