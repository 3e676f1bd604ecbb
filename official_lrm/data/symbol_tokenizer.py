"""Tokenizer of the byte values that occur in a text."""

import reprlib

import numpy as np

from official_lrm.data.text_bytes import ids_of_bytes, pieces_of
from official_lrm.data.text_tokenizer import TextTokenizer
from official_lrm.data.vocabulary_file import read_vocabulary

# Bytes counted at once: NumPy counts 8-byte integers, eight times the text.
_COUNTED_AT_ONCE = 2**20


class SymbolTokenizer(TextTokenizer):
    """Maps the byte values that occur in a text to ids, the commonest first.

    A token is a byte, as with ByteTokenizer, so the loss in nats per token
    divided by ln 2 is bits per byte; only the ids differ, and there are none
    for bytes that do not occur. A text with any other byte is refused: there
    is no "unknown".

        before: SymbolTokenizer.learn(b"banana\\n").encode(b"nab")
        after:  [1, 0, 2]        (uint8 [3]; the symbols are a, n, b, \\n)

    The order is that of Dai et al. (2019): by falling count, and of equal
    counts the symbol that occurs first (`Counter.most_common`).

    Their published models of enwik8 have 204 ids and those of text8 27. Their
    preparation writes a text as the numbers of its bytes, but a newline as a
    line break, and their reader splits the lines at white space and adds no
    mark for their ends. So newlines are neither counted nor predicted in these
    models: enwik8 has 205 symbols, and 204 with `skip_newlines`. They count
    all three splits.

    Args:
        symbols: the byte values in the order of their ids: a list, tuple,
            array or bytes of distinct integers from 0 to 255.
        skip_newlines: whether newlines have no id and are left out. What is
            decoded lacks them then.

    Raises:
        ValueError: there are none, or one is no byte value or there twice, or
            a newline is among them and is to be left out.
    """

    type = "symbols"
    unit = "character"

    def __init__(self, symbols, skip_newlines=False):
        self._symbols = _checked(symbols)
        if not isinstance(skip_newlines, bool):
            raise ValueError(
                f"skip_newlines must be True or False, got {skip_newlines!r}"
            )
        if skip_newlines and b"\n" in self._symbols:
            raise ValueError(
                "symbols must not hold 10, a newline, with skip_newlines"
            )
        self._skip_newlines = skip_newlines
        super().__init__([bytes([symbol]) for symbol in self._symbols])
        size = len(self._symbols)
        self._decoding = self._symbols + bytes(256 - size)
        # Where a byte has no id there are at most 255, none of them 255.
        encoding = bytearray([255] * 256)
        for index, symbol in enumerate(self._symbols):
            encoding[symbol] = index
        self._encoding = bytes(encoding)

    @classmethod
    def learn(cls, pieces, skip_newlines=False):
        """Makes the tokenizer of the symbols of a text.

        Args:
            pieces: iterable of bytes, the text cut anywhere: `[text]`.
            skip_newlines: as for the class.

        Returns:
            SymbolTokenizer.

        Raises:
            TypeError: `pieces` is no iterable of bytes.
            ValueError: the text is empty.
        """
        counts, order = np.zeros(256, np.int64), {}
        for piece in pieces_of(pieces):
            if skip_newlines:
                piece = piece.replace(b"\n", b"")
            view = np.frombuffer(piece, dtype=np.uint8)
            for start in range(0, len(view), _COUNTED_AT_ONCE):
                part = view[start : start + _COUNTED_AT_ONCE]
                new = np.bincount(part, minlength=256)
                first = np.flatnonzero((new > 0) & (counts == 0)).tolist()
                first.sort(key=part.tobytes().index)
                order.update(dict.fromkeys(first))
                counts += new
        if not order:
            raise ValueError(
                "text must hold at least one byte to learn symbols from, got "
                "none"
            )
        # Of equal counts the first stays first.
        symbols = sorted(order, key=counts.__getitem__, reverse=True)
        return cls(symbols, skip_newlines)

    @classmethod
    def from_vocabulary_file(cls, path):
        """Reads symbols as Dai et al. write them for enwik8.

            before: "32\\n101\\n116\\n"   (a file, one number a line)
            after:  [32, 101, 116]        (" ", "e", "t")

        Args:
            path: a text file with one byte value a line, as a decimal number,
                in the order of the ids. Newlines are skipped if 10 is not
                there, as the reader of Dai et al. does.

        Returns:
            SymbolTokenizer.

        Raises:
            FileNotFoundError: there is none.
            ValueError: naming the file and the line that is wrong.
        """
        lines = read_vocabulary(path)
        for number, line in enumerate(lines, start=1):
            if not (line.isascii() and line.isdecimal() and len(line) <= 3):
                raise ValueError(
                    f"{path} must have a byte value from 0 to 255 on each "
                    f"line, got {reprlib.repr(line)} on line {number}"
                )
        try:
            symbols = [int(line) for line in lines]
            return cls(symbols, skip_newlines=ord("\n") not in symbols)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def get_config(self):
        """Returns what `tokenizer_from_config` takes, a JSON-ready dict."""
        return {
            "type": self.type,
            "symbols": list(self._symbols),
            "skip_newlines": self._skip_newlines,
        }

    def _encode(self, data):
        if self._skip_newlines:
            data = data.replace(b"\n", b"")
        # Of NumPy's ways, `take` makes the indices eight times as large.
        ids = np.frombuffer(data.translate(self._encoding), dtype=np.uint8)
        if ids.size and ids.max() >= self.vocab_size:
            offset = int(np.argmax(ids >= self.vocab_size))
            raise ValueError(
                f"byte {data[offset]} at offset {offset} is none of the "
                f"{self.vocab_size} symbols of the vocabulary"
            )
        return ids

    def _decode(self, ids):
        return ids.astype(np.uint8).tobytes().translate(self._decoding)

    def _encode_tensor(self, text):
        import tensorflow as tf

        if self._skip_newlines:
            text = tf.strings.regex_replace(text, "\n", "")
        return ids_of_bytes(text, self._symbols)


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
