"""Projection of hidden states to heads, and back."""

from keras import ops

from official_lrm.kernels import (
    computed_again,
    product_per_head,
    tensordot,
)

# Kernels are [N, H, D], for either direction. For the backward pass nothing is
# held but them and the inputs: their cast to the compute dtype is made again.


def project_to_heads(inputs, kernel, memory=None, training=False):
    """Projects `inputs`, or `concat(memory, inputs)`, to heads.

    In training a memory gets no gradient: it is no function of anything that
    is learned in this step, and its share would be a tenth of a training
    step's FLOPs with a long memory in every layer. The kernel gets its
    gradient from both.

    Args:
        inputs: [..., T, D].
        kernel: [N, H, D] of the same dtype.
        memory: [..., M, D], or None for M = 0.
        training: whether to be differentiated, but for the memory.

    Returns:
        [N, ..., M + T, H].
    """

    def context_of(inputs, *memory):
        if not memory:
            return inputs
        return ops.concatenate([*memory, inputs], axis=-2)

    def forward(kernel, *inputs_memory):
        return product_per_head(context_of(*inputs_memory), kernel)

    # Within, not around: AutoGraph would take the decorator off.
    @ops.custom_gradient
    def differentiable(kernel, *inputs_memory):
        def gradient(upstream):
            inputs, *memory = inputs_memory
            upstream = newest = _heads_last(upstream)
            if memory:
                newest = upstream[..., ops.shape(memory[0])[-2] :, :, :]
            d_inputs = _from_heads(
                newest, computed_again(kernel, later=upstream)
            )
            context = context_of(
                computed_again(inputs, later=d_inputs, cheap=True), *memory
            )
            return (
                _kernel_gradient(upstream, context),
                d_inputs,
                *(ops.zeros_like(x) for x in memory),
            )

        return forward(kernel, *inputs_memory), gradient

    arguments = [kernel, inputs]
    if memory is not None:
        arguments.append(memory)
    return differentiable(*arguments) if training else forward(*arguments)


def project_from_heads(inputs, kernel, training=False):
    """Projects what all heads give to hidden states.

    Args:
        inputs: [N, B, T, H].
        kernel: [N, H, D] of the same dtype.
        training: whether to be differentiated.

    Returns:
        [B, T, D].
    """

    def forward(inputs, kernel):
        return _from_heads(_heads_last(inputs), kernel)

    @ops.custom_gradient
    def differentiable(inputs, kernel):
        def gradient(upstream):
            again = computed_again(kernel, later=upstream)
            return (
                product_per_head(upstream, again),
                _kernel_gradient(_heads_last(inputs), upstream),
            )

        return forward(inputs, kernel), gradient

    return (differentiable if training else forward)(inputs, kernel)


def _from_heads(heads, kernel):
    # [..., T, N, H] -> [..., T, D]
    rank = len(heads.shape)
    return tensordot(heads, kernel, ((rank - 2, rank - 1), (0, 1)))


def _kernel_gradient(heads, hidden):
    # [..., T, N, H], [..., T, D] -> [N, H, D]
    lanes = tuple(range(len(hidden.shape) - 1))
    return tensordot(heads, hidden, (lanes, lanes))


def _heads_last(heads):
    # [N, ..., T, H] -> [..., T, N, H]
    *lanes, entry = range(1, len(heads.shape))
    return ops.transpose(heads, (*lanes, 0, entry))
