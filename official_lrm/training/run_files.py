"""Small files that a run keeps beside its checkpoints."""

import os

import tensorflow as tf


def write_file(model_dir, name, text):
    """Writes a text file whole or not at all.

    A run that dies here keeps its old one.

    Args:
        model_dir: the folder, local or remote; made if missing.
        name: of the file.
        text: its content.

    Raises:
        ValueError: if the folder cannot be written.
    """
    path = os.path.join(model_dir, name)
    try:
        tf.io.gfile.makedirs(model_dir)
        temporary = f"{path}.tmp"
        with tf.io.gfile.GFile(temporary, "w") as stream:
            stream.write(text)
        tf.io.gfile.rename(temporary, path, overwrite=True)
    except tf.errors.OpError as error:
        raise ValueError(
            f"model_dir {model_dir} cannot be written: {error.message}"
        ) from None
