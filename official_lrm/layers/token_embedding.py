"""Token embedding and the softmax that shares its table."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("official_lrm")
class TokenEmbedding(keras.layers.Layer):
    """Looks tokens up in a table and scales them by sqrt(D).

    Args:
        vocab_size: V.
        hidden_size: D.
        initializer_stddev: of the table, normal.
    """

    def __init__(
        self, vocab_size, hidden_size, initializer_stddev=0.02, **kwargs
    ):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.initializer_stddev = initializer_stddev

    def build(self, tokens_shape=None):
        """Creates the table [V, D]."""
        del tokens_shape
        self.table = self.add_weight(
            name="table",
            shape=(self.vocab_size, self.hidden_size),
            initializer=keras.initializers.RandomNormal(
                stddev=self.initializer_stddev
            ),
        )
        self.built = True

    def call(self, tokens):
        """Embeds [B, T] integer tokens as [B, T, D]."""
        # ops.take counts negative indices from the end; beyond the end
        # TensorFlow's CPU kernel refuses them as it does all others.
        tokens = ops.where(tokens < 0, self.vocab_size, tokens)
        return ops.take(self.table, tokens, axis=0) * self.hidden_size**0.5

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "initializer_stddev": self.initializer_stddev,
        }


@keras.saving.register_keras_serializable("official_lrm")
class TokenSoftmax(keras.layers.Layer):
    """Logits over the vocabulary, `h E^T + b`, E being the embedding's table.

    Always runs in float32 (or float64): the sum over the vocabulary and the
    loss are where half precision hurts most.

    Args:
        vocab_size: V.
        dtype: "float32" or "float64".
    """

    def __init__(self, vocab_size, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.vocab_size = vocab_size

    def build(self, hidden_shape=None):
        """Creates the bias [V]."""
        del hidden_shape
        self.bias = self.add_weight(
            name="bias", shape=(self.vocab_size,), initializer="zeros"
        )
        self.built = True

    def call(self, hidden, embedding):
        """Computes logits.

        Args:
            hidden: [B, T, D] float.
            embedding: the TokenEmbedding whose table is the kernel.

        Returns:
            [B, T, V] float32 (float64), unnormalised.
        """
        table = ops.convert_to_tensor(embedding.table)
        table = ops.cast(table, self.compute_dtype)
        hidden = ops.cast(hidden, self.compute_dtype)
        return ops.matmul(hidden, ops.transpose(table)) + self.bias

    def log_probabilities(self, hidden, targets, embedding):
        """Log-probabilities of the targets.

        Args:
            hidden: [B, T, D] float.
            targets: [B, T] integer tokens.
            embedding: the TokenEmbedding whose table is the kernel.

        Returns:
            [B, T] float32 (float64), natural logarithms.
        """
        logits = self(hidden, embedding=embedding)
        return -ops.sparse_categorical_crossentropy(
            targets, logits, from_logits=True
        )

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "vocab_size": self.vocab_size}
