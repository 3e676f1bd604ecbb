"""Layer norm and the dense layer behind it."""

import keras
from keras import ops

from official_lrm.kernels import computed_again
from official_lrm.layers.statistics_dtype import statistics_dtype


def norm_dense(
    inputs, gamma, beta, kernel, bias, epsilon: float, training=False
):
    """`x = LayerNorm(inputs)`, and `x . kernel + bias`.

    In training the gradient is written by hand. It keeps `inputs` and two
    numbers of each row, and computes x from them again, where the derivatives
    of the two layers would keep both.

    Statistics are of float32 (float64 if the inputs are).

    Args:
        inputs: [B, T, D].
        gamma: [D], the norm's scale.
        beta: [D], its offset.
        kernel: [D, F] of the dtype of `inputs`.
        bias: [F] of the dtype of `inputs`.
        epsilon: added to the variance.
        training: whether to be differentiated.

    Returns:
        [B, T, D] and [B, T, F], of the dtype of `inputs`.
    """
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    wide_dtype = statistics_dtype(dtype)
    *lanes, hidden_size = ops.shape(inputs)

    def wide(x):
        return ops.cast(x, wide_dtype)

    def standardized(inputs, mean, inverse):
        return (wide(inputs) - mean) * inverse

    def normalized(inputs, mean, inverse, gamma, beta):
        x = standardized(inputs, mean, inverse)
        return ops.cast(x * gamma + beta, dtype)

    def forward(inputs, gamma, beta, kernel, bias):
        mean = ops.mean(wide(inputs), axis=-1, keepdims=True)
        variance = ops.mean(
            ops.square(wide(inputs) - mean), axis=-1, keepdims=True
        )
        inverse = ops.rsqrt(variance + epsilon)
        x = normalized(inputs, mean, inverse, gamma, beta)
        return (mean, inverse), (x, ops.matmul(x, kernel) + bias)

    # Within, not around: AutoGraph would take the decorator off.
    @ops.custom_gradient
    def differentiable(inputs, gamma, beta, kernel, bias):
        statistics, outputs = forward(inputs, gamma, beta, kernel, bias)

        def gradient(*upstream):
            # Two arguments on TensorFlow, one pair on JAX.
            d_x, d_outputs = keras.tree.flatten(upstream)
            flat = ops.reshape(d_outputs, (-1, ops.shape(d_outputs)[-1]))
            d_bias = ops.sum(flat, axis=0)
            mean, inverse = statistics
            kept = inputs, computed_again(mean, later=d_bias), inverse
            x = ops.reshape(normalized(*kept, gamma, beta), (-1, hidden_size))
            d_kernel = ops.matmul(ops.transpose(x), flat)
            d_x = wide(d_x + ops.matmul(d_outputs, ops.transpose(kernel)))
            return (*d_norm(d_x, *kept), d_kernel, d_bias)

        def d_norm(d_x, inputs, mean, inverse):
            x = standardized(inputs, mean, inverse)
            axes = tuple(range(len(lanes)))
            d_gamma = ops.sum(d_x * x, axis=axes)
            d_beta = ops.sum(d_x, axis=axes)
            d_x = d_x * gamma
            d_inputs = inverse * (
                d_x
                - ops.mean(d_x, axis=-1, keepdims=True)
                - x * ops.mean(d_x * x, axis=-1, keepdims=True)
            )
            return ops.cast(d_inputs, dtype), d_gamma, d_beta

        return outputs, gradient

    arguments = (inputs, wide(gamma), wide(beta), kernel, bias)
    return differentiable(*arguments) if training else forward(*arguments)[1]
