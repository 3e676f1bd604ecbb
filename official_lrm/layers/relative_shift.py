"""Between scores by distance and scores by key."""

from keras import ops


def relative_shift(scores):
    """Turns scores by distance into scores by key.

    Column k + 1 of the input scores the distance K - 1 - k, the same for every
    query; column 0 is not looked at. Column j of the output scores key j,
    which is at distance i + (K - T) - j from query i:

    ```
    [[. a2 a1 a0]     [[a1 a0  .]
     [. b2 b1 b0]] ->  [b2 b1 b0]]      T = 2, K = 3, M = 1
    ```

    `.` is above the causal diagonal, where the result is meaningless and must
    be masked.

    Source: Dai et al. (2019), appendix B.

    Args:
        scores: [..., T, K + 1].

    Returns:
        [..., T, K].
    """
    *batch, num_queries, width = ops.shape(scores)
    # Rows of K + 1 read as rows of K move one more column left a row. What is
    # cut off are whole rows of T: XLA shifts numbers off one end of a flat
    # tensor in a loop.
    scores = ops.reshape(scores, (*batch, width, num_queries))
    # ops.slice, not scores[..., 1:, :]: the gradient of strided slices took
    # half of a training step on CPUs.
    scores = ops.slice(
        scores,
        (*(0 for _ in batch), 1, 0),
        (*batch, width - 1, num_queries),
    )
    return ops.reshape(scores, (*batch, num_queries, width - 1))


def relative_unshift(gradients):
    """The transpose of `relative_shift`: its gradient.

    Args:
        gradients: [..., T, K], 0 above the causal diagonal.

    Returns:
        [..., T, K + 1], column 0 all 0.
    """
    *batch, num_queries, num_keys = ops.shape(gradients)
    gradients = ops.reshape(gradients, (*batch, num_keys, num_queries))
    padding = [(0, 0)] * len(batch) + [(1, 0), (0, 0)]
    gradients = ops.pad(gradients, padding)
    return ops.reshape(gradients, (*batch, num_queries, num_keys + 1))
