"""The products and the softmax of relative attention, and their gradient."""

import keras
from keras import ops

from official_lrm.kernels import (
    hide,
    product_less,
    softmax_of_bfloat16_is_wide,
)
from official_lrm.layers.relative_shift import relative_shift, relative_unshift
from official_lrm.layers.stateless_dropout import stateless_dropout
from official_lrm.layers.statistics_dtype import statistics_dtype


def attend(
    content_query,
    position_query,
    key,
    value,
    relative,
    mask,
    training=False,
    dropout=0.0,
    seed=None,
    site=0,
):
    """Values weighted by content and by relative position.

    ```
    softmax(content_query . key + shift(position_query . relative)) . value
    ```

    In training the gradient is written by hand. It keeps the probabilities and
    nothing else of their size, draws the dropout mask again, and passes over
    [N, B, T, K] half as often as the derivative of each operation would.

    Softmax runs in float32 (float64 if the inputs are).

    Args:
        content_query: [N, B, T, H], scaled.
        position_query: [N, B, T, H], scaled.
        key: [N, B, K, H].
        value: [N, B, K, H].
        relative: [N, K, H], of the distances K - 1 … 0.
        mask: [B or 1, T, K] bool, True where the key is visible; False at
            negative distances.
        training: whether to drop probabilities and to be differentiated.
        dropout: rate on the probabilities.
        seed: [2] integer tensor, needed where they are dropped.
        site: number of this dropout in the model.

    Returns:
        [N, B, T, H].
    """
    dtype = content_query.dtype
    shape = ops.shape(content_query)
    num_heads, batch_size, num_queries, head_size = shape
    rows = batch_size * num_queries
    num_keys = ops.shape(key)[2]

    def drop(x):
        if not training:
            return x
        return stateless_dropout(x, dropout, seed, site)

    def forward(content_query, position_query, key, value, relative):
        scores = ops.matmul(
            content_query, ops.swapaxes(key, -1, -2)
        )  # [N, B, T, K]
        by_distance = ops.matmul(
            ops.reshape(position_query, (num_heads, rows, head_size)),
            ops.swapaxes(relative, -1, -2),
        )  # [N, B * T, K + 1]: the table is shared by all lanes.
        by_distance = relative_shift(
            ops.reshape(
                by_distance, (num_heads, batch_size, num_queries, num_keys + 1)
            )
        )
        # Of one shape: XLA makes a copy of what is shifted for each that it
        # is used in.
        flat = (num_heads, rows, num_keys)
        scores = ops.reshape(scores, flat) + ops.reshape(by_distance, flat)
        visible = ops.broadcast_to(mask, (batch_size, num_queries, num_keys))
        visible = ops.reshape(visible, (rows, num_keys))
        probabilities = _masked_softmax(scores, visible, training)
        probabilities = ops.reshape(
            probabilities, (num_heads, batch_size, num_queries, num_keys)
        )
        return probabilities, ops.matmul(drop(probabilities), value)

    # Within, not around: AutoGraph would take the decorator off.
    @ops.custom_gradient
    def differentiable(content_query, position_query, key, value, relative):
        probabilities, outputs = forward(
            content_query, position_query, key, value, relative
        )

        def gradient(upstream):
            d_value = ops.matmul(
                ops.swapaxes(drop(probabilities), -1, -2), upstream
            )
            # What softmax subtracts, the sum over keys of probabilities *
            # d_probabilities, is also one over the head's width.
            inner = ops.sum(
                _wide(upstream) * _wide(outputs), axis=-1, keepdims=True
            )
            inner = ops.cast(inner, dtype)
            if dropout:
                d_scores = ops.matmul(upstream, ops.swapaxes(value, -1, -2))
                d_scores = drop(d_scores) - inner
            else:
                d_scores = product_less(upstream, value, inner)
            d_scores = probabilities * d_scores
            by_distance = ops.reshape(
                relative_unshift(d_scores), (num_heads, rows, num_keys + 1)
            )
            d_position_query = ops.matmul(by_distance, relative)
            d_relative = ops.matmul(
                ops.swapaxes(by_distance, -1, -2),
                ops.reshape(position_query, (num_heads, rows, head_size)),
            )
            return (
                ops.matmul(d_scores, key),
                ops.reshape(d_position_query, shape),
                ops.matmul(ops.swapaxes(d_scores, -1, -2), content_query),
                d_value,
                d_relative,
            )

        return outputs, gradient

    # A row in front makes the column that relative_shift wants.
    relative = ops.pad(relative, ((0, 0), (1, 0), (0, 0)))
    arguments = (content_query, position_query, key, value, relative)
    return differentiable(*arguments) if training else forward(*arguments)[1]


def _masked_softmax(scores, visible, training):
    # A trained step stays on this machine; the softmax of what is exported
    # must be wide on others.
    dtype = keras.backend.standardize_dtype(scores.dtype)
    if not (training and dtype == "bfloat16" and softmax_of_bfloat16_is_wide()):
        scores = _wide(scores)
    if scores.shape[-1] == 1:  # ops.softmax would warn.
        return ops.cast(ops.ones_like(scores), dtype)
    return ops.cast(ops.softmax(hide(scores, visible)), dtype)


def _wide(x):
    dtype = keras.backend.standardize_dtype(x.dtype)
    return ops.cast(x, statistics_dtype(dtype))
