"""Scores of what a query must not see."""

from keras import ops

from official_lrm.kernels.backends import compiled_for_tpus

# exp(x - max) is 0, and sums of it stay finite.
_HIDDEN = -1e30


def hide(scores, visible):
    """-1e30 instead of scores where a query must not see the key.

    XLA selects: it keeps what would be added in four times the bytes of a mask
    and reads it in every pass. Elsewhere the numbers are added, which takes a
    fifth of a selection's time on CPUs; softmax is the same to the last bit.

    Args:
        scores: [..., Q, K], float, but for float16, which ends before -1e30.
        visible: [Q, K] bool.

    Returns:
        A tensor of the shape and dtype of `scores`.
    """
    if compiled_for_tpus():
        return ops.where(visible, scores, ops.cast(_HIDDEN, scores.dtype))
    return scores + ops.cast(ops.where(visible, 0.0, _HIDDEN), scores.dtype)
