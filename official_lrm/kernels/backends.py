"""What will run the operations that are being traced."""

import keras


def compiled_for_tpus() -> bool:
    """Whether XLA fuses what is traced: on JAX, and under a TPUStrategy.

    XLA for TPUs is bound by the bytes that it reads and writes. TensorFlow's
    own runtime is not: it starts each operation by itself, and on CPUs
    computing something again takes longer than holding it.
    """
    if keras.backend.backend() != "tensorflow":
        return keras.backend.backend() == "jax"
    import tensorflow as tf

    return isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy)
