"""Multi-head attention over a memory and a segment, by relative position."""

import keras
from keras import ops

from official_lrm.layers.memory_projection import project_to_heads
from official_lrm.layers.stateless_dropout import stateless_dropout


def relative_shift(scores):
    """Turns scores by distance into scores by key.

    Column k of the input scores the distance K - 1 - k, the same for every
    query; column j of the output scores key j, which is at distance
    i + (K - T) - j from query i:

    ```
    [[a2 a1 a0]     [[a1 a0  .]
     [b2 b1 b0]] ->  [b2 b1 b0]]      T = 2, K = 3, M = 1
    ```

    `.` is above the causal diagonal, where the result is meaningless and must
    be masked.

    Source: Dai et al. (2019), appendix B.

    Args:
        scores: [..., T, K].

    Returns:
        [..., T, K].
    """
    *batch, num_queries, num_keys = ops.shape(scores)
    padding = [(0, 0)] * (len(batch) + 1) + [(1, 0)]
    scores = ops.pad(scores, padding)
    # Rows of K + 1 read as rows of K move one more column left a row.
    scores = ops.reshape(scores, (*batch, (num_keys + 1) * num_queries))
    # ops.slice, not scores[..., T:]: the gradient of strided slices took half
    # of a training step on CPUs.
    scores = ops.slice(
        scores,
        [0] * len(batch) + [num_queries],
        (*batch, num_keys * num_queries),
    )
    return ops.reshape(scores, (*batch, num_queries, num_keys))


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
        """Creates the five kernels from the hidden size of the inputs."""
        hidden_size = inputs_shape[-1]
        heads = (self.num_heads, self.head_size)

        def kernel(name, shape):
            return self.add_weight(
                name=f"{name}_kernel",
                shape=shape,
                initializer=keras.initializers.RandomNormal(
                    stddev=self.initializer_stddev
                ),
            )

        self.query_kernel = kernel("query", (hidden_size, *heads))
        self.key_kernel = kernel("key", (hidden_size, *heads))
        self.value_kernel = kernel("value", (hidden_size, *heads))
        self.position_kernel = kernel("position", (hidden_size, *heads))
        self.output_kernel = kernel("output", (*heads, hidden_size))
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
    ):
        """Attends.

        Args:
            inputs: [B, T, D].
            memory: [B, M, D], or None for M = 0. Gets no gradient in
                training.
            positions: [K, D], the table's rows of the distances K - 1 … 0.
            content_bias: [N, H], u.
            position_bias: [N, H], v.
            mask: [B or 1, T, K] bool, True where the key is visible.
            training: whether to drop attention probabilities.
            seed: [2] integer tensor, needed where they are dropped.
            site: number of this layer's dropout in the model.
            keys_values: (key, value), [N, B, K, H] each, of the memory and the
                inputs, instead of those projected from them here.

        Returns:
            [B, T, D].
        """
        batch_size, num_queries, hidden_size = ops.shape(inputs)
        if keys_values is None and memory is not None and training:
            keys_values = [
                project_to_heads(
                    memory, inputs, ops.cast(kernel, self.compute_dtype)
                )
                for kernel in (self.key_kernel, self.value_kernel)
            ]
        elif keys_values is None:
            context = inputs
            if memory is not None:
                context = ops.concatenate([memory, inputs], axis=1)
            keys_values = self.keys_values(context)
        key, value = keys_values
        num_keys = ops.shape(key)[2]
        rows = batch_size * num_queries

        # Heads lead, so that every product below is a plain batch of matrix
        # products and no [N, B, T, K] tensor is ever transposed.
        query = self._project(inputs, self.query_kernel)
        relative = self._project(positions, self.position_kernel)

        scale = self.head_size**-0.5
        content_query = (query + content_bias[:, None, None]) * scale
        position_query = (query + position_bias[:, None, None]) * scale

        content_scores = ops.matmul(
            content_query, ops.transpose(key, (0, 1, 3, 2))
        )  # [N, B, T, K]
        position_scores = ops.matmul(
            ops.reshape(position_query, (self.num_heads, rows, self.head_size)),
            ops.transpose(relative, (0, 2, 1)),
        )  # [N, B * T, K]: the table is shared by all lanes.
        position_scores = relative_shift(
            ops.reshape(
                position_scores,
                (self.num_heads, batch_size, num_queries, num_keys),
            )
        )
        scores = content_scores + position_scores
        if keras.backend.standardize_dtype(scores.dtype) != "float64":
            scores = ops.cast(scores, "float32")
        if scores.shape[-1] == 1:  # ops.softmax would warn.
            probabilities = ops.ones_like(scores)
        else:
            scores = ops.where(mask[None], scores, -1e30)
            probabilities = ops.softmax(scores)
        probabilities = ops.cast(probabilities, self.compute_dtype)
        if training:
            probabilities = stateless_dropout(
                probabilities, self.dropout, seed, site
            )
        outputs = ops.matmul(probabilities, value)  # [N, B, T, H]
        outputs = ops.reshape(
            ops.transpose(outputs, (1, 2, 0, 3)),
            (rows, self.num_heads * self.head_size),
        )
        outputs = ops.matmul(
            outputs, ops.reshape(self.output_kernel, (-1, hidden_size))
        )
        return ops.reshape(outputs, (batch_size, num_queries, hidden_size))

    def keys_values(self, context):
        """Keys and values of some positions, biases not added.

        Args:
            context: [B, K, D], layer inputs.

        Returns:
            (key, value), [N, B, K, H] each.
        """
        return (
            self._project(context, self.key_kernel),
            self._project(context, self.value_kernel),
        )

    def _project(self, inputs, kernel):
        # [..., D] x [D, N, H] -> [N, ..., H]
        kernel = ops.cast(kernel, self.compute_dtype)
        *leading, hidden_size = ops.shape(inputs)
        rows = leading[0] if len(leading) == 1 else leading[0] * leading[1]
        outputs = ops.matmul(
            ops.reshape(inputs, (1, rows, hidden_size)),
            ops.transpose(kernel, (1, 0, 2)),
        )
        return ops.reshape(outputs, (self.num_heads, *leading, self.head_size))

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "head_size": self.head_size,
            "dropout": self.dropout,
            "initializer_stddev": self.initializer_stddev,
        }
