"""What a run keeps beside its checkpoints: small files and presets."""

import contextlib
import errno
import math
import os
import shutil
import tempfile
import time

import tensorflow as tf
from absl import logging

from official_lrm.data.whole_files import (
    is_temporary,
    temporary_path,
    written_whole,
)
from official_lrm.models.presets import CONFIG_FILE
from official_lrm.training.checkpoint_contents import reason_of

# What lies unfinished for longer is of a run that was killed.
_ABANDONED_SECONDS = 3600


class UnwritableError(ValueError):
    """A folder of a run cannot be written; its checkpoints are intact."""


@contextlib.contextmanager
def writing(folder):
    """Names the folder of what cannot be written in the block.

    Args:
        folder: local or remote.

    Raises:
        UnwritableError: in place of what a file system raises.
    """
    try:
        yield
    except (tf.errors.OpError, OSError) as error:
        reason = reason_of(error).rstrip(".")
        raise UnwritableError(
            f"{folder} cannot be written: {reason}."
        ) from None


def write_file(model_dir, name, text):
    """Writes a text file whole or not at all.

    A run that dies here keeps its old one.

    Args:
        model_dir: the folder, local or remote; made if missing.
        name: of the file.
        text: its content.

    Raises:
        UnwritableError: if the folder cannot be written.
    """
    path = os.path.join(model_dir, name)
    with writing(model_dir):
        tf.io.gfile.makedirs(model_dir)
        with (
            written_whole(path, tf.io.gfile) as temporary,
            tf.io.gfile.GFile(temporary, "w") as stream,
        ):
            stream.write(text)


def write_preset(model, tokenizer, folder):
    """Writes a preset to a folder anywhere; each file whole or not at all.

    Args:
        model: a TransformerXLLanguageModel.
        tokenizer: its tokenizer.
        folder: local or remote; made if missing.

    Raises:
        UnwritableError: if the folder cannot be written.
    """
    with writing(folder):
        tf.io.gfile.makedirs(folder)
        _remove_abandoned(folder)
    with _scratch(folder) as scratch:
        with writing(tempfile.gettempdir() if "://" in folder else folder):
            _check_space(scratch, model)
            model.save_to_preset(scratch, tokenizer)
        with writing(folder):
            for name in sorted(
                os.listdir(scratch), key=lambda n: n == CONFIG_FILE
            ):
                _move(os.path.join(scratch, name), os.path.join(folder, name))


@contextlib.contextmanager
def _scratch(folder):
    # Keras writes to local disks only. Of them that of the folder, whose
    # space is looked after.
    if "://" in folder:
        with tempfile.TemporaryDirectory() as scratch:
            yield scratch
        return
    scratch = temporary_path(os.path.join(folder, "preset"))
    with writing(folder):
        os.mkdir(scratch)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _check_space(folder, model):
    # h5py does not survive a disk that fills up: it takes Python with it.
    needed = sum(
        math.prod(variable.shape) * variable.value.dtype.size
        for variable in model.variables
    )
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{os.strerror(errno.ENOSPC)}, {needed:,} bytes are needed and "
            f"{free:,} are free",
        )


def _move(source, target):
    if "://" not in target:
        os.replace(source, target)
        return
    with written_whole(target, tf.io.gfile) as temporary:
        tf.io.gfile.copy(source, temporary, overwrite=True)


def _remove_abandoned(folder):
    for name in tf.io.gfile.listdir(folder):
        name = name.rstrip("/")  # Remote folders end so.
        if not is_temporary(name):
            continue
        path = os.path.join(folder, name)
        with contextlib.suppress(tf.errors.NotFoundError):
            age = time.time() - tf.io.gfile.stat(path).mtime_nsec / 1e9
            if age > _ABANDONED_SECONDS:
                logging.warning(
                    "%s is of a run that was killed: removed.", path
                )
                if tf.io.gfile.isdir(path):
                    tf.io.gfile.rmtree(path)
                else:
                    tf.io.gfile.remove(path)
