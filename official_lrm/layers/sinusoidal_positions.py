"""The table of relative positions that the attention layers share."""

from keras import ops


def sinusoidal_positions(
    length, hidden_size: int, clamp_length: int | None = None, dtype="float32"
):
    """Sinusoids of the distances K-1, K-2, …, 0.

    Row k stands for the distance d = K - 1 - k between a query and a key and
    holds `concat(sin(d * f), cos(d * f))` with `f_i = 10000 ** (-2i / D)`. A
    layer with fewer keys reads the tail of the table, where the short
    distances are.

    Source: Dai et al. (2019), section 3.3; the sinusoids of Vaswani et al.
    (2017) with sines first.

    Args:
        length: K, an integer or a scalar int32 tensor.
        hidden_size: D, even.
        clamp_length: distances beyond it count as it; None = no clamp.
        dtype: float32 or float64. Half precision would make neighbouring
            distances equal: cast the table, not the distances.

    Returns:
        [K, D] in `dtype`.
    """
    distances = ops.arange(length - 1, -1, -1, dtype="int32")
    if clamp_length is not None:
        distances = ops.minimum(distances, clamp_length)
    distances = ops.cast(distances, dtype)
    exponents = ops.arange(0, hidden_size, 2, dtype=dtype) / hidden_size
    frequencies = 1.0 / ops.power(ops.cast(10000.0, dtype), exponents)
    angles = distances[:, None] * frequencies[None, :]  # [K, D / 2]
    return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)
