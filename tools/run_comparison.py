"""Whether two runs of the same config are one and the same, bit for bit."""

import os

import numpy as np
import tensorflow as tf

from official_lrm.training.checkpoint_files import (
    checkpoint_path,
    checkpoint_steps,
)


def compare_runs(first, second, step) -> str:
    """Compares what two runs left.

    Args:
        first: model_dir of a run that was left alone.
        second: model_dir of one that was not.
        step: the last step of both.

    Returns:
        A line that says what is the same.

    Raises:
        ValueError: naming the first thing that is not.
    """
    for folder in (first, second):
        if step not in checkpoint_steps(folder):
            raise ValueError(f"{folder} holds no checkpoint of step {step}.")
    paths = [checkpoint_path(folder, step) for folder in (first, second)]
    variables = _same_tensors(*paths)
    files = [_memory_files(path) for path in paths]
    if set(files[0]) != set(files[1]):
        raise ValueError(
            f"{first} has memories of {len(files[0])} hosts, {second} of "
            f"{len(files[1])}."
        )
    memories = sum(
        _same_tensors(file, files[1][name]) for name, file in files[0].items()
    )
    best = [_text(folder, "best/best.json") for folder in (first, second)]
    if best[0] != best[1]:
        raise ValueError(f"best.json was {best[0]!r} and is {best[1]!r}.")
    expected, others = _logged(first), _logged(second)
    for key, values in expected.items():
        # An evaluation may be recorded in best.json and killed before its
        # summary is flushed; a training step is logged before it is saved.
        missing = key not in others and key[0].startswith("validation/")
        if not missing and others.get(key) != values:
            raise ValueError(
                f"{key[0]} of step {key[1]} was {values} and is "
                f"{others.get(key)}."
            )
    logged = len(set(expected) & set(others))
    return (
        f"bit for bit the same: {variables} variables, {memories} memories, "
        f"best.json, {logged} of {len(expected)} figures logged"
    )


def _memory_files(path):
    files = tf.io.gfile.glob(f"{path}.memories-*.index")
    return {
        os.path.basename(file): file.removesuffix(".index") for file in files
    }


def _same_tensors(first, second):
    readers = [tf.train.load_checkpoint(path) for path in (first, second)]
    names = [set(r.get_variable_to_shape_map()) for r in readers]
    if names[0] != names[1]:
        raise ValueError(
            f"{first} and {second} differ in {sorted(names[0] ^ names[1])[0]}."
        )
    for name in sorted(names[0]):
        if not _same_bits(*(reader.get_tensor(name) for reader in readers)):
            raise ValueError(f"{name} of {first} is not that of {second}.")
    return len(names[0])


def _same_bits(first, second):
    if isinstance(first, bytes):  # What a checkpoint says of its run.
        return first == second
    first, second = np.asarray(first), np.asarray(second)
    return first.dtype == second.dtype and first.tobytes() == second.tobytes()


def _text(folder, name):
    with open(os.path.join(folder, name)) as stream:
        return stream.read()


def _logged(folder):
    # All values that were ever logged of a step: those of a step that was
    # done again must be the same again. Speed is none of them.
    figures = {}
    for name in ("train", "validation"):
        path = os.path.join(folder, name)
        for file in sorted(os.listdir(path)):
            for event in _events(os.path.join(path, file)):
                for value in event.summary.value:
                    if not value.tag.endswith("_per_second"):
                        figures.setdefault(
                            (f"{name}/{value.tag}", event.step), set()
                        ).add(float(tf.make_ndarray(value.tensor)))
    return figures


def _events(path):
    records = iter(tf.data.TFRecordDataset(path))
    while True:
        try:
            yield tf.compat.v1.Event.FromString(next(records).numpy())
        except (StopIteration, tf.errors.DataLossError):
            return  # A killed run may leave half a record.
