"""Projection of hidden states to heads."""

from keras import ops


def project_to_heads(inputs, kernel, memory=None, training=False):
    """Projects `inputs`, or `concat(memory, inputs)`, to heads.

    In training a memory gets no gradient: it is no function of anything that
    is learned in this step, and its share would be a tenth of a training
    step's FLOPs with a long memory in every layer. The kernel gets its
    gradient from both.

    Args:
        inputs: [..., T, D].
        kernel: [D, N, H] of the same dtype.
        memory: [..., M, D], or None for M = 0.
        training: whether a memory gets no gradient.

    Returns:
        [N, ..., M + T, H].
    """
    hidden_size, num_heads, head_size = kernel.shape
    flat_kernel = ops.reshape(kernel, (hidden_size, num_heads * head_size))

    def project(inputs, flat_kernel):
        # One product of all heads, whose kernel is read as it lies; heads lead
        # after it, so that scores need no transposition.
        outputs = ops.matmul(
            ops.reshape(inputs, (-1, hidden_size)), flat_kernel
        )
        shape = (*ops.shape(inputs)[:-1], num_heads, head_size)
        *lanes, head, width = range(len(shape))
        return ops.transpose(ops.reshape(outputs, shape), (head, *lanes, width))

    # Within, not around: AutoGraph would take the decorator off.
    @ops.custom_gradient
    def with_memory(memory, inputs, flat_kernel):
        context = ops.concatenate([memory, inputs], axis=-2)

        def gradient(upstream):
            *lanes, width = range(1, len(upstream.shape))
            upstream = ops.transpose(upstream, (*lanes, 0, width))
            upstream = ops.reshape(
                upstream, (*ops.shape(context)[:-1], num_heads * head_size)
            )
            newest = upstream[..., ops.shape(memory)[-2] :, :]
            newest = ops.reshape(newest, (-1, num_heads * head_size))
            d_inputs = ops.matmul(newest, ops.transpose(flat_kernel))
            d_kernel = ops.matmul(
                ops.transpose(ops.reshape(context, (-1, hidden_size))),
                ops.reshape(upstream, (-1, num_heads * head_size)),
            )
            return (
                ops.zeros_like(memory),
                ops.reshape(d_inputs, ops.shape(inputs)),
                d_kernel,
            )

        return project(context, flat_kernel), gradient

    if memory is not None and training:
        return with_memory(memory, inputs, flat_kernel)
    if memory is not None:
        inputs = ops.concatenate([memory, inputs], axis=-2)
    return project(inputs, flat_kernel)
