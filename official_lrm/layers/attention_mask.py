"""Which keys a query of a segment may see."""

from keras import ops

from official_lrm.memory.state import valid_slots


def attention_mask(
    position,
    span: int,
    num_queries,
    same_length: bool = False,
    attend_to_empty: bool = False,
):
    """Visibility of the K = M + T keys to the T queries of a segment.

    Key j is at distance `d = i + M - j` from query i. It is visible iff
    d >= 0, and

    - with `same_length`, `d < max(M, 1)`: every query sees exactly M keys once
      the memory is full (Hugging Face's convention; the TensorFlow reference
      had `d <= M`);
    - unless `attend_to_empty`, the key is no memory slot that was never
      written.

    Args:
        position: [B] int32, tokens seen before this segment.
        span: M.
        num_queries: T, an integer or a scalar int32 tensor.
        same_length: see above.
        attend_to_empty: see above.

    Returns:
        [B, T, K] bool, or [1, T, K] where all lanes see the same.
    """
    queries = ops.arange(num_queries, dtype="int32")[:, None]
    keys = ops.arange(span + num_queries, dtype="int32")[None, :]
    distances = queries + span - keys  # [T, K]
    mask = distances >= 0
    if same_length:
        mask = ops.logical_and(mask, distances < max(span, 1))
    mask = mask[None]
    if span and not attend_to_empty:
        # j >= M - min(position, M) holds for every key of the segment itself.
        valid = ops.concatenate(
            [
                valid_slots(position, span),
                ops.ones((ops.shape(position)[0], num_queries), dtype="bool"),
            ],
            axis=1,
        )
        mask = ops.logical_and(mask, valid[:, None, :])
    return mask
