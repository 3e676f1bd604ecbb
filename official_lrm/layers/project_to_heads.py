"""Projection of hidden states to heads."""

from keras import ops


def project_to_heads(inputs, kernel, num_heads, memory=None, training=False):
    """Projects `inputs`, or `concat(memory, inputs)`, to heads.

    In training a memory gets no gradient: it is no function of anything that
    is learned in this step, and its share would be a tenth of a training
    step's FLOPs with a long memory in every layer. The kernel gets its
    gradient from both.

    Args:
        inputs: [..., T, D].
        kernel: [D, N * H] of the same dtype.
        num_heads: N.
        memory: [..., M, D], or None for M = 0.
        training: whether a memory gets no gradient.

    Returns:
        [N, ..., M + T, H].
    """
    hidden_size, width = kernel.shape

    def project(inputs, kernel):
        # One product of all heads, whose kernel is read as it lies; heads lead
        # after it, so that scores need no transposition.
        outputs = ops.matmul(ops.reshape(inputs, (-1, hidden_size)), kernel)
        shape = (*ops.shape(inputs)[:-1], num_heads, width // num_heads)
        *lanes, head, entry = range(len(shape))
        return ops.transpose(ops.reshape(outputs, shape), (head, *lanes, entry))

    # Within, not around: AutoGraph would take the decorator off.
    @ops.custom_gradient
    def with_memory(memory, inputs, kernel):
        context = ops.concatenate([memory, inputs], axis=-2)

        def gradient(upstream):
            *lanes, entry = range(1, len(upstream.shape))
            upstream = ops.transpose(upstream, (*lanes, 0, entry))
            upstream = ops.reshape(upstream, (*ops.shape(context)[:-1], width))
            newest = upstream[..., ops.shape(memory)[-2] :, :]
            newest = ops.reshape(newest, (-1, width))
            d_inputs = ops.matmul(newest, ops.transpose(kernel))
            d_kernel = ops.matmul(
                ops.transpose(ops.reshape(context, (-1, hidden_size))),
                ops.reshape(upstream, (-1, width)),
            )
            return (
                ops.zeros_like(memory),
                ops.reshape(d_inputs, ops.shape(inputs)),
                d_kernel,
            )

        return project(context, kernel), gradient

    if memory is not None and training:
        return with_memory(memory, inputs, kernel)
    if memory is not None:
        inputs = ops.concatenate([memory, inputs], axis=-2)
    return project(inputs, kernel)
