"""Tokenizer of pieces of words, learnt from a text by SentencePiece."""

import base64
import io
import re
import reprlib

import numpy as np

from official_lrm.data.text_bytes import blocks
from official_lrm.data.text_tokenizer import TextTokenizer

# SentencePiece writes a space as U+2581, so one in the text would come back
# as a space. It is written as a pair of characters, and so is the first of
# the pair; both pairs are pieces.
_SPACE = "\u2581"
_ESCAPES = {"\x01": "\x01\x01", _SPACE: "\x01\x02"}

# <unk>, a piece for each byte value, and those above.
_SMALLEST_VOCABULARY = 1 + 256 + len(_ESCAPES)

# Pieces do not reach beyond the space that they begin with, nor over a line
# feed: cut before these, a text has the same pieces. One text at once takes
# 100 bytes of memory a byte, and longer than many of these.
_CUTS = b" \n"
_TEXT_SIZE = 2**10
_ENCODED_AT_ONCE = 2**20
# Characters, which have at most four bytes.
_LEARNT_AT_ONCE = _ENCODED_AT_ONCE // 8

# All that must come back, spaces of all kinds among it.
_PROBE = " \0\x01\x02 \t\r\n\n a  b\u2581 \ufffd\x01\u2581\U0001f642 <unk>  "


class SentencePieceTokenizer(TextTokenizer):
    """Maps pieces of words to ids, and single bytes where there is none.

    The pieces are those of byte-pair encoding as the `sentencepiece` package
    learns it; `tensorflow_text` cuts texts into them, here and in a graph.

        before: SentencePieceTokenizer.learn([b"the cat the hat"], 270)
                .encode("the hat é")
        after:  [261, 263, 259, 266, 198, 172]
                (uint16 [6]; the, " h", "at", " ", and the bytes of é)

    Every valid UTF-8 text comes back as it was, with white space, line feeds,
    NUL and characters that were never seen: nothing is normalized or added,
    and what is no piece is encoded as the ids of its bytes. A line feed is
    such an id. Of a text that is no valid UTF-8, each byte that is part of no
    character is encoded as U+FFFD and comes back as that.

    Args:
        model: bytes, the serialized model that `learn` made.

    Raises:
        ValueError: `model` is none, or one that does not keep every text.
    """

    type = "sentencepiece"
    unit = "piece"

    def __init__(self, model):
        super().__init__(_texts_of(model))
        self._model = model
        self._tokenizer = None

    @classmethod
    def learn(cls, pieces, vocab_size, max_bytes=2**24):
        """Learns the pieces of a text; the same text gives the same ones.

        Args:
            pieces: iterable of bytes, the text cut anywhere: `[text]`, or
                parts of a file.
            vocab_size: number of ids; 259 of them are the bytes and other
                ids that every vocabulary has.
            max_bytes: how much of the text's beginning to learn from (about;
                it is cut at white space). 16 MiB take seconds and 1 GiB.

        Returns:
            SentencePieceTokenizer.

        Raises:
            TypeError: `pieces` is no iterable of bytes.
            ValueError: `vocab_size` or `max_bytes` is no such number, or the
                text is empty or has too few pieces or too many characters.
        """
        for name, value, least in (
            ("vocab_size", vocab_size, _SMALLEST_VOCABULARY),
            ("max_bytes", max_bytes, 1),
        ):
            is_integer = isinstance(value, (int, np.integer))
            if not is_integer or isinstance(value, bool) or value < least:
                raise ValueError(
                    f"{name} must be an integer of at least {least}, got "
                    f"{value!r}"
                )
        import sentencepiece

        stream = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_sentences(pieces, max_bytes),
                model_writer=stream,
                vocab_size=int(vocab_size),
                model_type="bpe",
                byte_fallback=True,
                user_defined_symbols=list(_ESCAPES.values()),
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                unk_id=0,
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                max_sentence_length=_ENCODED_AT_ONCE,
                # The order of sums, and so the result, is that of threads.
                num_threads=4,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(_why(error, vocab_size)) from None
        return cls(stream.getvalue())

    def get_config(self):
        """Returns what `tokenizer_from_config` takes, a JSON-ready dict."""
        model = base64.b64encode(self._model).decode("ascii")
        return {"type": self.type, "model": model}

    @classmethod
    def from_base64(cls, model):
        """Makes the tokenizer of the "model" of `get_config`.

        Args:
            model: str, base64.

        Returns:
            SentencePieceTokenizer.

        Raises:
            ValueError: `model` is no base64 of a model.
        """
        try:
            return cls(base64.b64decode(model, validate=True))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"model must be a SentencePiece model in base64, got "
                f"{reprlib.repr(model)}: {error}"
            ) from None

    def graph_objects(self):
        """TensorFlow Text's tokenizer; see TextTokenizer.

        Raises:
            ImportError: `tensorflow_text` cannot be imported.
        """
        if self._tokenizer is None:
            import tensorflow as tf

            text = import_tensorflow_text()
            # Asked for while a graph is traced, it must outlive the graph.
            with tf.init_scope():
                self._tokenizer = text.SentencepieceTokenizer(
                    self._model, out_type=tf.int32
                )
        return [self._tokenizer]

    def _encode(self, data):
        import tensorflow as tf

        # Grows in place: twice the ids of a corpus are never in memory.
        ids = bytearray()
        for block in blocks([data], _CUTS, _ENCODED_AT_ONCE, before=True):
            texts = list(blocks([block], _CUTS, _TEXT_SIZE, before=True))
            # Now, even while a graph is traced.
            with tf.init_scope():
                values = self._encode_tensor(texts).flat_values.numpy()
            ids += values.astype(self.id_dtype).tobytes()
        return np.frombuffer(ids, self.id_dtype)

    def _encode_tensor(self, text):
        import tensorflow as tf

        (tokenizer,) = self.graph_objects()
        for character, pair in _ESCAPES.items():
            text = tf.strings.regex_replace(text, character, pair)
        return tokenizer.tokenize(text)


def import_tensorflow_text():
    """Imports TensorFlow Text, whose operations SentencePiece needs.

    Returns:
        The module.

    Raises:
        ImportError: it cannot be imported.
    """
    try:
        import tensorflow_text
    except ImportError as error:
        raise ImportError(
            "a SentencePiece tokenizer needs tensorflow_text (pip install "
            f"tensorflow-text): {error}"
        ) from None
    return tensorflow_text


def _sentences(pieces, max_bytes):
    """Yields str without line feeds, for the trainer."""
    left = max_bytes
    for block in blocks(pieces, _CUTS, _ENCODED_AT_ONCE // 8, before=True):
        block = block[:left]
        left -= len(block)
        # It cannot learn from text with NUL.
        text = block.decode("utf-8", errors="replace").replace("\0", "")
        for character, pair in _ESCAPES.items():
            text = text.replace(character, pair)
        for line in filter(None, text.split("\n")):
            # The trainer leaves out what is longer than max_sentence_length.
            for start in range(0, len(line), _LEARNT_AT_ONCE):
                yield line[start : start + _LEARNT_AT_ONCE]
        if not left:
            return


def _why(error, vocab_size) -> str:
    """What an error of the trainer says of vocab_size."""
    message = " ".join(str(error).split())
    most = re.search(r"set it to a value <= (\d+)", message)
    if most:
        return (
            f"vocab_size must be at most {most[1]} for this text, which has "
            f"no more pieces, got {vocab_size}"
        )
    if "sentences_.empty()" in message:
        return "text must hold at least one character to learn from, got none"
    least = re.search(r"smaller than required_chars\. \d+ vs (\d+)", message)
    if least:
        return (
            f"vocab_size must be at least {least[1]} for the characters of "
            f"this text, got {vocab_size}"
        )
    return (
        f"no SentencePiece model of vocab_size={vocab_size} can be learnt "
        f"from this text: {message}"
    )


def _texts_of(model) -> list:
    """bytes of each id of a model, once it was found to keep every text."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
        if not model or not processor.LoadFromSerializedProto(model):
            raise RuntimeError("not a model")
    except (RuntimeError, TypeError):
        raise ValueError(
            f"it is damaged or no SentencePiece model, got "
            f"{reprlib.repr(model)}"
        ) from None
    texts = []
    unescaped = {pair: character for character, pair in _ESCAPES.items()}
    for index in range(processor.vocab_size()):
        piece = processor.id_to_piece(index)
        if processor.is_byte(index):
            text = bytes([int(piece[3:5], 16)])
        elif processor.is_unknown(index):
            text = "\ufffd".encode()
        else:
            piece = unescaped.get(piece) or piece.replace(_SPACE, " ")
            text = piece.encode()
        texts.append(text)
    escaped = _PROBE
    for character, pair in _ESCAPES.items():
        escaped = escaped.replace(character, pair)
    ids = processor.encode(escaped)
    if b"".join([texts[index] for index in ids]) != _PROBE.encode():
        raise ValueError(
            "the SentencePiece model must keep white space and unknown "
            "characters, as one that SentencePieceTokenizer.learn made"
        )
    return texts
