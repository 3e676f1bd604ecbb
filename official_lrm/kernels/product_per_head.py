"""Hidden states times a kernel of heads, heads first."""

from keras import ops

from official_lrm.kernels.backends import compiled_for_tpus
from official_lrm.kernels.tensordot import tensordot


def product_per_head(hidden, kernel):
    """`einsum("...td,nhd->n...th", hidden, kernel)`.

    XLA gets one product and writes its result in the order that is wanted.
    TensorFlow's own runtime gets a product of each head, whose results lie in
    that order: to transpose the result of one product, and the kernel for it,
    takes longer than to read `hidden` once more for each head.

    Args:
        hidden: [..., T, D].
        kernel: [N, H, D] of the same dtype.

    Returns:
        [N, ..., T, H].
    """
    rank = len(hidden.shape)
    if compiled_for_tpus():
        heads = tensordot(hidden, kernel, ((rank - 1,), (2,)))
        return ops.transpose(heads, (rank - 1, *range(rank - 1), rank))
    num_heads, head_size, hidden_size = ops.shape(kernel)
    heads = ops.matmul(
        ops.reshape(hidden, (1, -1, hidden_size)),
        ops.swapaxes(kernel, -1, -2),
    )
    return ops.reshape(heads, (num_heads, *ops.shape(hidden)[:-1], head_size))
