"""Which checkpoints a folder holds.

Of a checkpoint `ckpt-N` the index is written last: a prefix without one is
what a killed run left. The file `checkpoint`, which TensorFlow's own functions
read, may be one behind.
"""

import os
import re

import tensorflow as tf

from official_lrm.training.run_files import write_file

_FILE = re.compile(r"ckpt-(\d+)(_temp|[._].*)")


def checkpoint_path(folder, step) -> str:
    """The prefix of the checkpoint of a step."""
    return os.path.join(folder, f"ckpt-{step}")


def checkpoint_step(path) -> int:
    """The step of a checkpoint, from its prefix."""
    return int(path.rsplit("-", 1)[1])


def checkpoint_steps(folder) -> list[int]:
    """The steps that a folder holds checkpoints of, in ascending order.

    Args:
        folder: a model_dir, local or remote; it need not exist.
    """
    return sorted(
        step
        for step, names in _files(folder).items()
        if f"ckpt-{step}.index" in names
    )


def newest_checkpoint(folder) -> str | None:
    """The prefix of the newest checkpoint of a folder, or None."""
    steps = checkpoint_steps(folder)
    return checkpoint_path(folder, steps[-1]) if steps else None


def write_state(folder, steps):
    """Writes the file `checkpoint`.

    Args:
        folder: the model_dir.
        steps: of its checkpoints, in ascending order.
    """
    paths = [checkpoint_path(folder, step) for step in steps]
    state = tf.compat.v1.train.generate_checkpoint_state_proto(
        folder, paths[-1], all_model_checkpoint_paths=paths
    )
    write_file(folder, "checkpoint", str(state))


def remove_checkpoint(folder, step):
    """Removes every file of a checkpoint, its memories and leftovers.

    Args:
        folder: the model_dir.
        step: of the checkpoint; it need not exist.
    """
    # The index first: one that is half removed must not look like one.
    names = sorted(
        _files(folder).get(step, ()), key=lambda n: n != f"ckpt-{step}.index"
    )
    for name in names:
        path = os.path.join(folder, name)
        if tf.io.gfile.isdir(path):
            tf.io.gfile.rmtree(path)
        elif tf.io.gfile.exists(path):
            tf.io.gfile.remove(path)


def prune_checkpoints(
    folder, newest, max_to_keep, disk_budget=None
) -> list[int]:
    """Removes old checkpoints, and what killed runs left of some.

    Args:
        folder: the model_dir.
        newest: step of the newest one, kept whatever its size. Later ones are
            torn (the run went back behind them) and removed.
        max_to_keep: how many to keep at most.
        disk_budget: bytes of all that are kept, or None.

    Returns:
        The steps that are left, in ascending order.
    """
    kept, total = [], 0
    for step in reversed(checkpoint_steps(folder)):
        if step > newest:
            continue
        if len(kept) == max_to_keep:
            break
        if disk_budget is not None:
            total += _size(folder, step)
            if kept and total > disk_budget:
                break
        kept.append(step)
    for step in _files(folder):
        if step not in kept:
            remove_checkpoint(folder, step)
    return sorted(kept)


def _files(folder):
    # Names by step. Remote folders end in "/".
    files = {}
    if tf.io.gfile.exists(folder):
        for name in tf.io.gfile.listdir(folder):
            name = name.rstrip("/")
            if match := _FILE.fullmatch(name):
                files.setdefault(int(match[1]), set()).add(name)
    return files


def _size(folder, step):
    return sum(
        tf.io.gfile.stat(os.path.join(folder, name)).length
        for name in _files(folder)[step]
    )
