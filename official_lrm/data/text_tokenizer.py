"""What every tokenizer is: the interface, and what all do alike."""

from official_lrm.data.text_bytes import as_bytes, as_ids
from official_lrm.data.token_array import smallest_dtype


class TextTokenizer:
    """Text to token ids and back, in Python and in a TensorFlow graph.

    `encode` and `decode` are of one text; only SentencePiece's `encode` needs
    TensorFlow. `encode_tensor` and `decode_tensor` are of many texts, run in
    eager mode, in `tf.data`, in a `tf.function` and in a SavedModel, and give
    the same.

    Attributes:
        type: str, one of TOKENIZER_TYPES.
        unit: what a token is and so what a loss per token is of:
            "character", "word" or "piece".

    Args:
        texts: list of bytes, the text of each id.
    """

    type: str
    unit: str

    def __init__(self, texts):
        self._texts = texts

    def __repr__(self):
        return f"<{type(self).__name__} of {self.vocab_size} ids>"

    @property
    def vocab_size(self):
        """int, the number of ids; every id is in [0, vocab_size)."""
        return len(self._texts)

    @property
    def id_dtype(self):
        """NumPy dtype: the smallest of uint8, uint16 and int32 for the ids.

        A corpus stays in memory as ids; the lanes hand out int32.
        """
        return smallest_dtype(self.vocab_size - 1)

    def encode(self, data):
        """Returns the ids of a text.

        Args:
            data: bytes-like, or a str (encoded as UTF-8).

        Returns:
            `id_dtype` [N].

        Raises:
            TypeError: `data` is neither bytes-like nor str.
            ValueError: a byte of it has no id; only bytes and symbols are so.
        """
        return self._encode(as_bytes(data))

    def decode(self, ids):
        """Returns the text of ids.

        Args:
            ids: integers [N] of any dtype (array, tensor or sequence).

        Returns:
            bytes.

        Raises:
            ValueError: `ids` is not one-dimensional or not of integers, or
                an id is outside [0, vocab_size).
        """
        return self._decode(as_ids(ids, self.vocab_size))

    def encode_tensor(self, text):
        """Returns the ids of texts; `encode` in the graph.

        Args:
            text: string tensor [B].

        Returns:
            tf.RaggedTensor int32 [B, None].

        Raises:
            tf.errors.InvalidArgumentError: a byte of it has no id.
        """
        import tensorflow as tf

        text = tf.ensure_shape(tf.convert_to_tensor(text, tf.string), [None])
        return self._encode_tensor(text)

    def decode_tensor(self, ids):
        """Returns the texts of ids; `decode` in the graph.

        Args:
            ids: tf.RaggedTensor int32 [B, None].

        Returns:
            string tensor [B].

        Raises:
            tf.errors.InvalidArgumentError: an id is outside [0, vocab_size).
        """
        import tensorflow as tf

        values = ids.flat_values
        known = tf.debugging.Assert(
            tf.reduce_all((values >= 0) & (values < self.vocab_size)),
            [
                f"ids must be from 0 to {self.vocab_size - 1}; got values from",
                tf.reduce_min(values),
                "to",
                tf.reduce_max(values),
            ],
        )
        # Eager mode has checked and returns None.
        with tf.control_dependencies([] if known is None else [known]):
            texts = tf.gather(tf.constant(self._texts, tf.string), values)
        return self._join(ids.with_flat_values(texts))

    def get_config(self):
        """Returns what `tokenizer_from_config` takes, a JSON-ready dict."""
        raise NotImplementedError

    def graph_objects(self) -> list:
        """What `encode_tensor` uses that a SavedModel has to keep.

        Returns:
            TensorFlow's own trackable objects: tables and models. An object
            that is saved with functions of this tokenizer holds them as an
            attribute.
        """
        return []

    # What a tokenizer defines; what these get was checked above.

    def _encode(self, data):
        raise NotImplementedError

    def _encode_tensor(self, text):
        raise NotImplementedError

    def _decode(self, ids):
        return b"".join([self._texts[index] for index in ids.tolist()])

    def _join(self, texts):
        """`_decode` of ragged texts of ids [B, None], in the graph."""
        import tensorflow as tf

        return tf.strings.reduce_join(texts, axis=-1)
