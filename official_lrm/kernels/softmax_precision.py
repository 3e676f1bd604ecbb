"""What TensorFlow's softmax computes in."""

import functools

import keras

from official_lrm.kernels.backends import compiled_for_tpus


def softmax_of_bfloat16_is_wide() -> bool:
    """Whether softmax of bfloat16 is that of float32, rounded once.

    oneDNN's is, where the processor has the instructions; it saves two casts
    of all scores and passes over half of the bytes. Other softmaxes of
    TensorFlow round after each operation. It is found out by trying, once, on
    the device that a new operation runs on: the answer holds for this machine,
    not for one that what is traced is exported to.

    Returns:
        False on other backends and for TPUs, where nothing is tried.
    """
    if keras.backend.backend() != "tensorflow" or compiled_for_tpus():
        return False
    return _is_wide()


@functools.cache
def _is_wide():
    import tensorflow as tf

    @tf.function
    def is_wide():
        scores = 4 * tf.random.stateless_normal([64, 897], (1, 2))
        scores = tf.cast(scores, tf.bfloat16)
        wide = tf.nn.softmax(tf.cast(scores, tf.float32))
        return tf.reduce_all(
            tf.nn.softmax(scores) == tf.cast(wide, tf.bfloat16)
        )

    with tf.init_scope():
        return tf.executing_eagerly() and bool(is_wide())
