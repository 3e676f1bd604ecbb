"""Projection of hidden states to heads."""

from keras import ops

from official_lrm.kernels import computed_again


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
        training: whether to be differentiated, but for the memory.

    Returns:
        [N, ..., M + T, H].
    """
    width = kernel.shape[-1]

    def flat(x):
        return ops.reshape(x, (-1, ops.shape(x)[-1]))

    def context_of(inputs, *memory):
        if not memory:
            return inputs
        return ops.concatenate([*memory, inputs], axis=-2)

    def forward(kernel, *inputs_memory):
        context = context_of(*inputs_memory)
        # One product of all heads, whose kernel is read as it lies; heads lead
        # after it, so that scores need no transposition.
        outputs = ops.matmul(flat(context), kernel)
        shape = (*ops.shape(context)[:-1], num_heads, width // num_heads)
        *lanes, head, entry = range(len(shape))
        return ops.transpose(ops.reshape(outputs, shape), (head, *lanes, entry))

    # Within, not around: AutoGraph would take the decorator off.
    @ops.custom_gradient
    def differentiable(kernel, *inputs_memory):
        def gradient(upstream):
            inputs, *memory = inputs_memory
            *lanes, entry = range(1, len(upstream.shape))
            upstream = ops.transpose(upstream, (*lanes, 0, entry))
            upstream = ops.reshape(upstream, (*ops.shape(upstream)[:-2], width))
            newest = upstream
            if memory:
                newest = upstream[..., ops.shape(memory[0])[-2] :, :]
            d_inputs = ops.matmul(flat(newest), ops.transpose(kernel))
            context = context_of(
                computed_again(inputs, later=d_inputs), *memory
            )
            return (
                ops.matmul(ops.transpose(flat(context)), flat(upstream)),
                ops.reshape(d_inputs, ops.shape(inputs)),
                *(ops.zeros_like(x) for x in memory),
            )

        return forward(kernel, *inputs_memory), gradient

    arguments = [kernel, inputs]
    if memory is not None:
        arguments.append(memory)
    return differentiable(*arguments) if training else forward(*arguments)
