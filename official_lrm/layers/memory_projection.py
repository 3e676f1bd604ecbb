"""Projection of a memory and a segment to heads."""

from keras import ops


def project_to_heads(memory, inputs, kernel):
    """Projects `concat(memory, inputs)`, of which a memory gets no gradient.

    The memory is no function of anything that is learned in this step, and
    its share of the gradient would be a tenth of a training step's FLOPs with
    a long memory in every layer. The kernel gets its gradient from both.

    Args:
        memory: [B, M, D].
        inputs: [B, T, D].
        kernel: [D, N, H] of the same dtype.

    Returns:
        [N, B, M + T, H].
    """

    # Within, not around: AutoGraph would take the decorator off.
    @ops.custom_gradient
    def apply(memory, inputs, kernel):
        batch_size, num_queries, hidden_size = ops.shape(inputs)
        _, num_heads, head_size = kernel.shape
        context = ops.concatenate([memory, inputs], axis=1)
        num_keys = ops.shape(context)[1]
        rows = batch_size * num_keys
        context = ops.reshape(context, (1, rows, hidden_size))
        outputs = ops.matmul(context, ops.transpose(kernel, (1, 0, 2)))
        outputs = ops.reshape(
            outputs, (num_heads, batch_size, num_keys, head_size)
        )

        def gradient(upstream):
            newest = ops.transpose(
                upstream[:, :, num_keys - num_queries :], (1, 2, 0, 3)
            )
            d_inputs = ops.matmul(
                ops.reshape(
                    newest, (batch_size * num_queries, num_heads * head_size)
                ),
                ops.transpose(ops.reshape(kernel, (hidden_size, -1))),
            )
            d_kernel = ops.matmul(
                ops.transpose(context, (0, 2, 1)),
                ops.reshape(upstream, (num_heads, rows, head_size)),
            )  # [N, D, H]
            return (
                ops.zeros_like(memory),
                ops.reshape(d_inputs, (batch_size, num_queries, hidden_size)),
                ops.transpose(d_kernel, (1, 0, 2)),
            )

        return outputs, gradient

    return apply(memory, inputs, kernel)
