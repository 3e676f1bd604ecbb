"""A feed-forward network's activation and dropout in one."""

from keras import ops

from official_lrm.kernels import relu_gradient
from official_lrm.layers.stateless_dropout import stateless_dropout


def relu_dropout(inputs, rate: float, seed, site: int):
    """`stateless_dropout(relu(inputs), rate, seed, site)`.

    Its gradient needs the outputs only, which the next matrix product keeps
    anyway: they are 0 exactly where relu or dropout made them so. Else the
    backward pass holds relu's outputs and the mask too.

    Args:
        inputs: float tensor of any shape.
        rate: probability from 0 to below 1 of dropping an element.
        seed: [2] integer tensor, or None where the rate is 0.
        site: which of the model's dropouts this is.

    Returns:
        A tensor of the shape and dtype of `inputs`.
    """

    @ops.custom_gradient
    def apply(inputs):
        outputs = stateless_dropout(ops.relu(inputs), rate, seed, site)

        def gradient(upstream):
            d_inputs = relu_gradient(upstream, outputs)
            if d_inputs is None:
                d_inputs = upstream * ops.cast(outputs > 0, upstream.dtype)
            return d_inputs * (1 / (1 - rate))

        return outputs, gradient

    return apply(inputs)
