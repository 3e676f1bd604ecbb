"""Long segments in blocks, for layers whose queries see a short way back.

Under `same_length` a query sees M keys. Of a segment of T positions the
products are then needed in a band only: blocks of queries, each with the M
keys before it, cost T * (block + M) instead of T * (T + M).
"""

from keras import ops

# Of queries at the least: shorter ones make matrix products slow.
_MIN_BLOCK = 128


def block_length(span: int, num_queries, same_length: bool):
    """How many queries a block has.

    Args:
        span: M.
        num_queries: T, an integer or a scalar int32 tensor.
        same_length: whether each query sees M keys.

    Returns:
        An integer, at least M; None if blocks would not pay, or T is not
        known.
    """
    if not same_length or not isinstance(num_queries, int):
        return None
    length = max(span, _MIN_BLOCK)
    return length if num_queries >= 2 * length else None


def num_keys(span: int, num_queries, same_length: bool):
    """How many keys a layer's queries see together, or those of one block.

    Args:
        span: M.
        num_queries: as for `block_length`.
        same_length: as for `block_length`.

    Returns:
        M + T, or M + b for blocks of b queries.
    """
    return span + (block_length(span, num_queries, same_length) or num_queries)


def block_positions(position, span: int, num_queries: int, length: int):
    """What a lane's blocks have seen before them, for `attention_mask`.

    Args:
        position: [B] int32, tokens seen before the segment.
        span: M; more is counted as M, and never overflows.
        num_queries: T.
        length: of a block.

    Returns:
        [B * blocks] int32, a lane's blocks in order.
    """
    num_blocks = _num_blocks(num_queries, length)
    starts = ops.arange(num_blocks, dtype="int32") * length
    return ops.reshape(
        ops.minimum(position, span)[:, None] + starts[None], (-1,)
    )


def split_queries(queries, length: int):
    """Blocks of queries, as lanes.

    Args:
        queries: [N, B, T, H].
        length: of a block; the last one is filled up with zeros.

    Returns:
        [N, B * blocks, length, H].
    """
    num_heads, batch_size, num_queries, head_size = ops.shape(queries)
    num_blocks = _num_blocks(num_queries, length)
    queries = _filled_up(queries, num_blocks * length)
    return ops.reshape(
        queries, (num_heads, batch_size * num_blocks, length, head_size)
    )


def split_keys(keys, span: int, length: int):
    """What each block of queries sees: its own positions and M before them.

    Args:
        keys: [N, B, M + T, H].
        span: M, at most `length`.
        length: of a block.

    Returns:
        [N, B * blocks, M + length, H].
    """
    num_heads, batch_size, num_keys, head_size = ops.shape(keys)
    num_blocks = _num_blocks(num_keys - span, length)
    shape = (num_heads, batch_size, num_blocks, length, head_size)
    size = num_blocks * length
    keys = _filled_up(keys, size + length)
    windows = ops.reshape(keys[:, :, :size], shape)
    if span:
        following = ops.reshape(keys[:, :, length:], shape)
        if span < length:
            following = following[:, :, :, :span]
        windows = ops.concatenate([windows, following], axis=3)
    return ops.reshape(
        windows,
        (num_heads, batch_size * num_blocks, span + length, head_size),
    )


def join_queries(blocks, batch_size, num_queries: int):
    """The inverse of `split_queries`.

    Args:
        blocks: [N, B * blocks, length, H].
        batch_size: B.
        num_queries: T.

    Returns:
        [N, B, T, H].
    """
    num_heads, _, _, head_size = ops.shape(blocks)
    joined = ops.reshape(blocks, (num_heads, batch_size, -1, head_size))
    return joined[:, :, :num_queries]


def _num_blocks(num_queries, length):
    return -(-num_queries // length)


def _filled_up(x, size):
    missing = size - ops.shape(x)[2]
    if not missing:
        return x
    return ops.pad(x, ((0, 0), (0, 0), (0, missing), (0, 0)))
