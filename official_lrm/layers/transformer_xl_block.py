"""One layer of a Transformer-XL."""

import keras
from keras import ops

from official_lrm.layers.norm_dense import norm_dense
from official_lrm.layers.relative_attention import RelativeMultiHeadAttention
from official_lrm.layers.relu_dropout import relu_dropout
from official_lrm.layers.stateless_dropout import stateless_dropout


@keras.saving.register_keras_serializable("official_lrm")
class TransformerXLBlock(keras.layers.Layer):
    """Relative attention and a feed-forward network, post-norm.

    ```
    a = LayerNorm(x + Dropout(Attention(x, memory)))
    y = LayerNorm(a + Dropout(W_2 Dropout(relu(W_1 a + b_1)) + b_2))
    ```

    The block does not know its memory span: it attends to whatever memory it
    is given.

    Source: Dai et al. (2019), section 3.3.

    Args:
        hidden_size: D.
        num_heads: N.
        head_size: H.
        inner_size: F.
        dropout: rate on the attention output and inside and after the
            feed-forward network.
        attention_dropout: rate on the attention probabilities.
        layer_norm_epsilon: added to the variance.
        initializer_stddev: of all kernels, normal.
    """

    #: Dropout sites of one block.
    NUM_SITES = 4

    def __init__(
        self,
        hidden_size,
        num_heads,
        head_size,
        inner_size,
        dropout=0.0,
        attention_dropout=0.0,
        layer_norm_epsilon=1e-5,
        initializer_stddev=0.02,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.head_size = head_size
        self.inner_size = inner_size
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.layer_norm_epsilon = layer_norm_epsilon
        self.initializer_stddev = initializer_stddev

        self.attention = RelativeMultiHeadAttention(
            num_heads,
            head_size,
            dropout=attention_dropout,
            initializer_stddev=initializer_stddev,
            dtype=self.dtype_policy,
            name="attention",
        )
        self.attention_norm = self._layer_norm("attention_norm")
        self.inner = self._dense(inner_size, "inner")
        self.outer = self._dense(hidden_size, "outer")
        self.feed_forward_norm = self._layer_norm("feed_forward_norm")

    def build(self, inputs_shape=None):
        """Creates the weights."""
        del inputs_shape
        shape = (None, None, self.hidden_size)
        self.attention.build(shape)
        self.attention_norm.build(shape)
        self.inner.build(shape)
        self.outer.build((None, None, self.inner_size))
        self.feed_forward_norm.build(shape)
        self.built = True

    def call(
        self,
        inputs,
        memory,
        positions,
        content_bias,
        position_bias,
        mask,
        training=False,
        seed=None,
        first_site=0,
        keys_values=None,
        relative=None,
    ):
        """Applies the block; arguments as RelativeMultiHeadAttention's.

        Args:
            inputs: [B, T, D].
            memory: [B, M, D] or None.
            positions: [K, D], or None where `relative` is given.
            content_bias: [N, H].
            position_bias: [N, H].
            mask: [B or 1, T, K] bool.
            training: whether to apply dropout.
            seed: [2] integer tensor, needed where dropout is applied.
            first_site: number of the first of the block's NUM_SITES dropouts.
            keys_values: as RelativeMultiHeadAttention's.
            relative: as RelativeMultiHeadAttention's.

        Returns:
            [B, T, D].
        """

        def drop(x, site):
            if not training:
                return x
            return stateless_dropout(x, self.dropout, seed, first_site + site)

        attended = self.attention(
            inputs,
            memory,
            positions,
            content_bias,
            position_bias,
            mask,
            training=training,
            seed=seed,
            site=first_site,
            keys_values=keys_values,
            relative=relative,
        )
        norm = self.attention_norm
        attended, inner = norm_dense(
            inputs + drop(attended, 1),
            norm.gamma,
            norm.beta,
            *self._narrow(self.inner),
            self.layer_norm_epsilon,
            training=training,
        )
        if training:
            inner = relu_dropout(inner, self.dropout, seed, first_site + 2)
        else:
            inner = ops.relu(inner)
        # Not self.outer(inner): the gradient of its bias is added up in the
        # compute dtype on CPUs, 30 times as far off for 1,024 bfloat16 rows.
        kernel, bias = self._narrow(self.outer)
        outputs = ops.matmul(inner, kernel) + bias
        return self.feed_forward_norm(attended + drop(outputs, 3))

    def _narrow(self, dense):
        return (
            ops.cast(weight, self.compute_dtype)
            for weight in (dense.kernel, dense.bias)
        )

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "hidden_size": self.hidden_size,
            "num_heads": self.num_heads,
            "head_size": self.head_size,
            "inner_size": self.inner_size,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "initializer_stddev": self.initializer_stddev,
        }

    def _dense(self, units, name):
        return keras.layers.Dense(
            units,
            kernel_initializer=keras.initializers.RandomNormal(
                stddev=self.initializer_stddev
            ),
            dtype=self.dtype_policy,
            name=name,
        )

    def _layer_norm(self, name):
        return keras.layers.LayerNormalization(
            epsilon=self.layer_norm_epsilon, dtype=self.dtype_policy, name=name
        )
