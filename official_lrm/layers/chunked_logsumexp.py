"""Log-sum-exp of logits that are never held all at once."""

import math

from keras import ops

# Of one chunk's logits. 2 ** 24 float32 numbers are 64 MiB: large enough for
# matrix products at full speed, small beside the weights that need chunks.
_MAX_ELEMENTS = 2**24


def chunked_logsumexp(inputs, kernel, bias, start=0, count=None):
    """`logsumexp(inputs @ kernel^T + bias)` of a range of rows.

    The logits of at most 2^24 / n rows exist at a time, in the forward pass
    and in the backward pass, which computes them again: the memory does not
    grow with the number of rows. Rows outside the range cost nothing. All
    shapes are static even though `start` and `count` are tensors, so that the
    loop compiles for TPUs.

    Args:
        inputs: [R, E] float.
        kernel: [n, E] of the same dtype.
        bias: [n] of the same dtype.
        start: scalar int32, first row of the range.
        count: scalar int32, rows of the range; None = all from `start` on.

    Returns:
        [R], the natural logarithm; 0 for rows outside the range.
    """
    num_rows = ops.shape(inputs)[0]
    if count is None:
        count = num_rows - start
    start = ops.cast(start, "int32")
    count = ops.cast(count, "int32")
    return _chunked_logsumexp(inputs, kernel, bias, start, count)


@ops.custom_gradient
def _chunked_logsumexp(inputs, kernel, bias, start, count):
    # Else TensorFlow's eager tape keeps the logits of every chunk.
    inputs, kernel, bias = map(ops.stop_gradient, (inputs, kernel, bias))
    num_rows, width = ops.shape(inputs)
    chunk = _rows_per_chunk(num_rows, kernel.shape[0])
    rows = ops.arange(num_rows, dtype="int32")
    valid = ops.logical_and(rows >= start, rows < start + count)

    # The last chunk may reach beyond the last row.
    def pad(x, value=0):
        widths = [(0, chunk)] + [(0, 0)] * (len(x.shape) - 1)
        return ops.pad(x, widths, constant_values=value)

    padded = pad(inputs)

    def logits_of(first):
        x = ops.slice(padded, (first, 0), (chunk, width))
        return x, ops.matmul(x, ops.transpose(kernel)) + bias

    def step(first, result):
        _, logits = logits_of(first)
        # Not ops.slice_update: its TensorFlow op is one of XLA's, which a
        # server that loads the exported model may not have.
        places = first + ops.arange(chunk, dtype="int32")
        result = ops.scatter_update(
            result, places[:, None], ops.logsumexp(logits, axis=-1)
        )
        return first + chunk, result

    def remains(first, *results):
        del results
        return first < start + count

    _, result = ops.while_loop(remains, step, (start, pad(inputs[:, 0] * 0)))
    result = ops.where(valid, result[:num_rows], 0)

    def gradient(upstream):
        # d logsumexp / d logits = softmax; rows outside the range have none.
        weights = pad(ops.where(valid, upstream, 0))
        # Infinite where a row has none: its exponentials cannot overflow.
        normalizers = pad(ops.where(valid, result, math.inf), math.inf)

        def step(first, d_inputs, d_kernel, d_bias):
            x, logits = logits_of(first)
            scale = ops.slice(normalizers, (first,), (chunk,))
            weight = ops.slice(weights, (first,), (chunk,))
            d_logits = ops.exp(logits - scale[:, None]) * weight[:, None]
            d_inputs = ops.slice_update(
                d_inputs, (first, 0), ops.matmul(d_logits, kernel)
            )
            d_kernel = d_kernel + ops.matmul(ops.transpose(d_logits), x)
            d_bias = d_bias + ops.sum(d_logits, axis=0)
            return first + chunk, d_inputs, d_kernel, d_bias

        _, d_inputs, d_kernel, d_bias = ops.while_loop(
            remains,
            step,
            (
                start,
                ops.zeros_like(padded),
                ops.zeros_like(kernel),
                ops.zeros_like(bias),
            ),
        )
        return d_inputs[:num_rows], d_kernel, d_bias, None, None

    return result, gradient


def _rows_per_chunk(num_rows, num_logits):
    chunk = max(8, _MAX_ELEMENTS // num_logits // 8 * 8)
    if isinstance(num_rows, int):
        return max(1, min(chunk, num_rows))
    return ops.maximum(ops.minimum(chunk, num_rows), 1)
