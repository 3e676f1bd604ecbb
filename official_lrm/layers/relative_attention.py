"""Multi-head attention over a memory and a segment, by relative position."""

import keras
from keras import ops

from official_lrm.layers.attend import attend
from official_lrm.layers.attention_blocks import (
    join_queries,
    split_keys,
    split_queries,
)
from official_lrm.layers.project_to_heads import (
    project_from_heads,
    project_to_heads,
)


@keras.saving.register_keras_serializable("official_lrm")
class RelativeMultiHeadAttention(keras.layers.Layer):
    """Attention of a segment to a memory and to itself.

    For query i and key j at distance d = i + M - j, and each head:

    ```
    score = ((q_i + u) . k_j + (q_i + v) . W_r R_d) / sqrt(H)
    ```

    where R is the table of relative positions and u, v are learned vectors
    (`content_bias`, `position_bias`). Keys and values come from
    `concat(memory, inputs)`; the number of parameters does not depend on M.

    Softmax runs in float32 (float64 under a float64 policy).

    Source: Dai et al. (2019), section 3.3.

    Args:
        num_heads: N.
        head_size: H.
        dropout: rate on the attention probabilities.
        initializer_stddev: of the kernels, normal.
    """

    def __init__(
        self,
        num_heads,
        head_size,
        dropout=0.0,
        initializer_stddev=0.02,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.head_size = head_size
        self.dropout = dropout
        self.initializer_stddev = initializer_stddev

    def build(self, inputs_shape):
        """Creates the five kernels, [N, H, D] each, from the inputs' D."""
        hidden_size = inputs_shape[-1]
        # All of one shape, in which they are read in both directions: with D in
        # front XLA for TPUs copied the four that project to heads.
        shape = (self.num_heads, self.head_size, hidden_size)

        def kernel(name):
            return self.add_weight(
                name=f"{name}_kernel",
                shape=shape,
                initializer=keras.initializers.RandomNormal(
                    stddev=self.initializer_stddev
                ),
            )

        self.query_kernel = kernel("query")
        self.key_kernel = kernel("key")
        self.value_kernel = kernel("value")
        self.position_kernel = kernel("position")
        self.output_kernel = kernel("output")
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
        site=0,
        keys_values=None,
        relative=None,
    ):
        """Attends.

        Args:
            inputs: [B, T, D].
            memory: [B, M, D], or None for M = 0. Gets no gradient in
                training.
            positions: [K, D], the table's rows of the distances K - 1 … 0.
            content_bias: [N, H], u.
            position_bias: [N, H], v.
            mask: [B or 1, T, K] bool, True where the key is visible. Of
                blocks of b queries each (`attention_blocks`), [B * blocks, b,
                M + b]; `positions` then ends at the distance M + b - 1.
            training: whether to drop attention probabilities.
            seed: [2] integer tensor, needed where they are dropped.
            site: number of this layer's dropout in the model.
            keys_values: (key, value), [N, B, K, H] each, of the memory and the
                inputs, instead of those projected from them here.
            relative: [N, K, H], what `project_positions` made of `positions`,
                instead of computing it here.

        Returns:
            [B, T, D].
        """
        batch_size, num_queries, _ = ops.shape(inputs)
        if keys_values is None:
            keys_values = self.keys_values(inputs, memory, training)
        key, value = keys_values
        # Heads lead, so that every product below is a plain batch of matrix
        # products and no [N, B, T, K] tensor is ever transposed.
        scale = self.head_size**-0.5
        query = self._project(
            inputs, self.query_kernel * scale, training=training
        )
        if relative is None:
            relative = self.project_positions(positions)
        content_query, position_query = (
            query + (bias * scale)[:, None, None]
            for bias in (content_bias, position_bias)
        )
        length = mask.shape[1]
        in_blocks = isinstance(num_queries, int) and length != num_queries
        if in_blocks:
            span = ops.shape(key)[2] - num_queries
            content_query, position_query = (
                split_queries(query, length)
                for query in (content_query, position_query)
            )
            key, value = (split_keys(x, span, length) for x in (key, value))
        outputs = attend(
            content_query,
            position_query,
            key,
            value,
            relative,
            mask,
            training=training,
            dropout=self.dropout,
            seed=seed,
            site=site,
        )
        if in_blocks:
            outputs = join_queries(outputs, batch_size, num_queries)
        return project_from_heads(
            outputs, self._narrow(self.output_kernel), training
        )

    def keys_values(self, inputs, memory=None, training=False):
        """Keys and values of some positions, biases not added.

        Args:
            inputs: [B, T, D], layer inputs.
            memory: [B, M, D], those of the positions before; None for M = 0.
                Gets no gradient in training.
            training: whether they are to be differentiated.

        Returns:
            (key, value), [N, B, M + T, H] each.
        """
        return tuple(
            self._project(inputs, kernel, memory, training)
            for kernel in (self.key_kernel, self.value_kernel)
        )

    def project_positions(self, positions):
        """Relative positions as queries see them.

        Args:
            positions: [K, D].

        Returns:
            [N, K, H].
        """
        return self._project(positions, self.position_kernel)

    def _project(self, inputs, kernel, memory=None, training=False):
        return project_to_heads(inputs, self._narrow(kernel), memory, training)

    def _narrow(self, kernel):
        return ops.cast(kernel, self.compute_dtype)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "head_size": self.head_size,
            "dropout": self.dropout,
            "initializer_stddev": self.initializer_stddev,
        }
