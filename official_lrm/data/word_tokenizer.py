"""Tokenizer of words between white space, as WikiText has them."""

import collections
import reprlib

import numpy as np

from official_lrm.data.text_bytes import blocks
from official_lrm.data.text_tokenizer import TextTokenizer
from official_lrm.data.vocabulary_file import read_vocabulary

#: The end of a line, and what stands for words that have no id.
END_OF_LINE = "<eos>"
UNKNOWN = "<unk>"

# ASCII's, at which bytes.split and tf.strings.split cut.
_WHITE_SPACE = b" \t\n\r\x0b\f"

# Bytes that are a list of words at once: a word in a list takes some 40 more.
_SPLIT_AT_ONCE = 2**20


class WordTokenizer(TextTokenizer):
    """Maps words to ids, the commonest first, and line ends to `<eos>`.

    The vocabulary is that of Dai et al. (2019) for WikiText: `<eos>`, then
    the words by falling count and of equal counts the word that occurs first.
    A text is split at ASCII white space; each line feed is an `<eos>`, and a
    last line without one has none. A word without an id is `<unk>`, which is
    a word like others of WikiText; so is a word that is no UTF-8.

        before: WordTokenizer.learn([b" a b a \\n"]).encode(b"b c a\\n")
        after:  [2, 3, 1, 0]
                (uint8 [4]; the words are <eos>, a, b, <unk>)

    White space is not kept: `decode` gives one space between words and none
    beside a line feed, "b <unk> a\\n". A text where `<eos>` is written as a
    word gives the id of a line's end. Encoding what was decoded gives the
    same ids. The ids of two texts, the first of which ends in white space,
    are the ids of the text that both make.

    Args:
        words: list of str in the order of their ids. Without `<eos>` among
            them a line feed is white space like any other, and without
            `<unk>` a text with a word that has no id is refused.

    Raises:
        ValueError: there are none, or a word is empty, has ASCII white space
            in it, is no text, or is there twice.
    """

    type = "words"
    unit = "word"

    def __init__(self, words):
        self._ids = _checked(words)
        texts = list(self._ids)
        end_of_line = self._ids.get(END_OF_LINE.encode())
        # What a line feed is replaced by before the text is split.
        self._end = b"\n"
        if end_of_line is not None:
            texts[end_of_line] = b"\n"
            self._end = f" {END_OF_LINE} ".encode()
        super().__init__(texts)
        self._unknown = self._ids.get(UNKNOWN.encode(), -1)
        self._table = None

    @classmethod
    def learn(cls, pieces, max_size=None):
        """Makes the tokenizer of the words of a text.

        `<unk>` is counted where it occurs as a word, and is the last id where
        it does not, or is not common enough for `max_size`.

        Args:
            pieces: iterable of bytes, the text cut anywhere: `[text]`, or
                parts of a file. Memory is that of the distinct words and of
                one piece, not of the text.
            max_size: keep so many ids at most, `<eos>` and `<unk>` among
                them; None = those of all words.

        Returns:
            WordTokenizer.

        Raises:
            TypeError: `pieces` is no iterable of bytes.
            ValueError: `max_size` is not an integer from 2 on.
        """
        is_integer = isinstance(max_size, (int, np.integer))
        if max_size is not None and (
            not is_integer or isinstance(max_size, bool) or max_size < 2
        ):
            raise ValueError(
                "max_size must be None or an integer of at least 2 (for "
                f"{END_OF_LINE} and {UNKNOWN}), got {max_size!r}"
            )
        counts = collections.Counter()
        for block in blocks(pieces, _WHITE_SPACE, _SPLIT_AT_ONCE):
            counts.update(block.split())
        words = [END_OF_LINE]
        for text, _ in counts.most_common():
            word = text.decode("utf-8", errors="ignore")
            if word.encode() == text and word != END_OF_LINE:
                words.append(word)
        words = words[:max_size]
        if UNKNOWN not in words:
            if len(words) == max_size:
                words.pop()
            words.append(UNKNOWN)
        return cls(words)

    @classmethod
    def from_vocabulary_file(cls, path):
        """Reads the words of a text file.

        Args:
            path: a UTF-8 file with one word a line in the order of the ids.

        Returns:
            WordTokenizer.

        Raises:
            FileNotFoundError: there is none.
            ValueError: naming the file and the line that is wrong, or what
                it lacks.
        """
        words = read_vocabulary(path)
        for number, word in enumerate(words, start=1):
            if word.encode().split() != [word.encode()]:
                raise ValueError(
                    f"{path} must have one word on each line, got "
                    f"{reprlib.repr(word)} on line {number}"
                )
        try:
            return cls(words)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def get_config(self):
        """Returns what `tokenizer_from_config` takes, a JSON-ready dict."""
        words = [word.decode("utf-8") for word in self._ids]
        return {"type": self.type, "words": words}

    def graph_objects(self):
        """The table of the words; see TextTokenizer."""
        if self._table is None:
            import tensorflow as tf

            # Asked for while a graph is traced, it must outlive the graph.
            with tf.init_scope():
                self._table = tf.lookup.StaticHashTable(
                    tf.lookup.KeyValueTensorInitializer(
                        tf.constant(list(self._ids), tf.string),
                        tf.range(self.vocab_size),
                    ),
                    default_value=self._unknown,
                )
        return [self._table]

    def _encode(self, data):
        # Grows in place: twice the ids of a corpus are never in memory.
        ids = bytearray()
        id_of, unknown = self._ids.get, self._unknown
        for block in blocks([data], _WHITE_SPACE, _SPLIT_AT_ONCE):
            words = block.replace(b"\n", self._end).split()
            numbers = [id_of(word, unknown) for word in words]
            if unknown < 0 and -1 in numbers:
                raise ValueError(
                    f"word {reprlib.repr(words[numbers.index(-1)])} is none "
                    f"of the {self.vocab_size} of the vocabulary, which has "
                    f"no {UNKNOWN}"
                )
            ids += np.array(numbers, self.id_dtype).tobytes()
        return np.frombuffer(ids, self.id_dtype)

    def _encode_tensor(self, text):
        import tensorflow as tf

        (table,) = self.graph_objects()
        text = tf.strings.regex_replace(text, "\n", self._end)
        words = tf.strings.split(text)
        ids = table.lookup(words.flat_values)
        if self._unknown < 0:
            known = tf.debugging.Assert(
                tf.reduce_all(ids >= 0),
                [
                    f"text must hold the {self.vocab_size} words of the "
                    f"vocabulary only, which has no {UNKNOWN}; got",
                    tf.boolean_mask(words.flat_values, ids < 0)[:1],
                ],
            )
            # Eager mode has checked and returns None.
            with tf.control_dependencies([] if known is None else [known]):
                ids = tf.identity(ids)
        return words.with_flat_values(ids)

    def _decode(self, ids):
        text = b" ".join([self._texts[index] for index in ids.tolist()])
        return text.replace(b" \n", b"\n").replace(b"\n ", b"\n")

    def _join(self, texts):
        import tensorflow as tf

        text = tf.strings.reduce_join(texts, axis=-1, separator=" ")
        text = tf.strings.regex_replace(text, " \n", "\n")
        return tf.strings.regex_replace(text, "\n ", "\n")


def _checked(words) -> dict:
    """The UTF-8 of the words -> their ids, in order."""
    if not isinstance(words, (list, tuple)):
        raise ValueError(
            f"words must be a list of words, got {reprlib.repr(words)}"
        )
    first = {}
    for index, word in enumerate(words):
        where = f"got {reprlib.repr(word)} at index {index}"
        if not isinstance(word, str):
            raise ValueError(f"words must be str, {where}")
        try:
            text = word.encode("utf-8")
        except UnicodeEncodeError:  # Half of a surrogate pair.
            raise ValueError(f"words must be Unicode, {where}") from None
        if text.split() != [text]:
            raise ValueError(
                f"words must have no white space and not be empty, {where}"
            )
        if first.setdefault(text, index) != index:
            raise ValueError(
                f"words must be distinct, got {reprlib.repr(word)} at index "
                f"{first[text]} and at index {index}"
            )
    if not first:
        raise ValueError("words must have at least one word, got none")
    return first
