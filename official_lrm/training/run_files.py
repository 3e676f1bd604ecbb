"""What a run keeps beside its checkpoints: small files and presets."""

import os
import tempfile

import tensorflow as tf

from official_lrm.data.temporary_path import temporary_path
from official_lrm.models.presets import CONFIG_FILE


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
        temporary = temporary_path(path)
        with tf.io.gfile.GFile(temporary, "w") as stream:
            stream.write(text)
        tf.io.gfile.rename(temporary, path, overwrite=True)
    except tf.errors.OpError as error:
        raise ValueError(
            f"model_dir {model_dir} cannot be written: {error.message}"
        ) from None


def write_preset(model, tokenizer, folder):
    """Writes a preset to a folder anywhere; each file whole or not at all.

    Args:
        model: a TransformerXLLanguageModel.
        tokenizer: its tokenizer.
        folder: local or remote; made if missing.
    """
    tf.io.gfile.makedirs(folder)
    # Keras writes to local disks only.
    with tempfile.TemporaryDirectory() as scratch:
        model.save_to_preset(scratch, tokenizer)
        for name in sorted(os.listdir(scratch), key=lambda n: n == CONFIG_FILE):
            path = os.path.join(folder, name)
            temporary = temporary_path(path)
            tf.io.gfile.copy(
                os.path.join(scratch, name), temporary, overwrite=True
            )
            tf.io.gfile.rename(temporary, path, overwrite=True)
