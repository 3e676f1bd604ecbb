"""What a gradient computes again instead of holding it."""

import keras
from keras import ops

from official_lrm.kernels.backends import compiled_for_tpus


def computed_again(tensor, later, cheap=False):
    """`tensor`, from which a gradient computes what it does not hold.

    XLA merges a second computation with the first one, whose result it then
    holds, or runs the second one early (optimization barriers are gone when it
    schedules). So this result is a function of `later`, though of the same
    values.

    TensorFlow's own runtime gets `tensor` as it is: on CPUs and GPUs the time
    of computing again is worth more. Where it is not, `tensor` waits for
    `later`: what is made of it would be merged or run early there, too.

    Args:
        tensor: floats, what the forward pass left.
        later: any tensor that the backward pass has before it needs the
            result; a small one, as it is held for this.
        cheap: whether it is a mere copy that is made again, for which nothing
            should be held anywhere.

    Returns:
        A tensor of the same values.
    """
    if not compiled_for_tpus():
        if not cheap or keras.backend.backend() != "tensorflow":
            return tensor
        import tensorflow as tf

        with tf.control_dependencies([later]):
            return tf.identity(tensor)
    rank = len(later.shape)
    first = ops.reshape(ops.slice(later, (0,) * rank, (1,) * rank), ())
    # Of float32 XLA for TPUs keeps what is only multiplied in bfloat16: this
    # must not be the one use that needs more.
    first = ops.cast(first, "bfloat16")
    return tensor + ops.cast(ops.minimum(ops.abs(first), 0), tensor.dtype)
