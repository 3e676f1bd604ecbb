"""Checkpoints that hold everything the next training step depends on.

`ckpt-N` is a TensorFlow checkpoint of every variable of model and optimizer,
keyed by its path, with the step and a description of the run;
`ckpt-N.memories-00000-of-00001` beside it holds the memories of the replicas
of one host. The memories are written first and `ckpt-N` commits them.
"""

import json
import os

import tensorflow as tf
from absl import logging

# What TensorFlow raises for files that are torn, truncated or foreign, and
# what its reader makes of the same in Python.
READ_ERRORS = (tf.errors.OpError, IndexError, ValueError)

_FORMAT = 1


class RunDescription(tf.train.experimental.PythonState):
    """What a checkpoint says of its run: a dict kept as JSON.

    Args:
        current: the dict of the run at hand.
    """

    def __init__(self, current):
        self.current = {"format": _FORMAT, **current} if current else {}
        self.restored = None

    def serialize(self):
        """Returns the JSON text."""
        return json.dumps(self.current, sort_keys=True)

    def deserialize(self, string_value):
        """Keeps the restored dict beside the current one."""
        self.restored = json.loads(string_value)


def variables_by_path(variables) -> dict:
    """Raw variables of Keras variables, by path.

    TensorFlow's own tracking misses Keras 3 layers held in lists, and says
    nothing.

    Args:
        variables: Keras variables.

    Returns:
        A dict from path to tf.Variable.

    Raises:
        ValueError: if two variables have one path.
    """
    by_path = {variable.path: variable.value for variable in variables}
    if len(by_path) != len(variables):
        raise ValueError("two variables share one path; none may be lost.")
    return by_path


class MemoryCheckpointManager(tf.train.CheckpointManager):
    """Saves and restores a trainer with its memories.

    Args:
        trainer: a LanguageModelTrainer.
        directory: where checkpoints go.
        max_to_keep: how many are kept.
        checkpoint_interval: steps between two.
    """

    def __init__(self, trainer, directory, max_to_keep, checkpoint_interval):
        super().__init__(
            trainer.checkpoint,
            directory=directory,
            max_to_keep=max_to_keep,
            step_counter=trainer.global_step,
            checkpoint_interval=checkpoint_interval,
            init_fn=trainer.initialize,
        )
        self._trainer = trainer

    def save(self, checkpoint_number=None, check_interval=True, options=None):
        """Writes the memories, then the checkpoint that commits them.

        Args:
            checkpoint_number: the global step.
            check_interval: whether to save only when the interval has passed.
            options: as tf.train.CheckpointManager's.

        Returns:
            The prefix of the checkpoint, or None if it was not due.
        """
        step = int(checkpoint_number)
        if check_interval and not self._due(step):
            return None
        prefix = os.path.join(self.directory, f"ckpt-{step}")
        if self.latest_checkpoint == prefix:
            return None  # Saved at this very step already.
        self._trainer.close_progress()  # Orbit will say that it was saved.
        memories = self._trainer.memories
        if memories is not None:
            write_memories(prefix, self._trainer.strategy, memories)
        path = super().save(
            checkpoint_number=step, check_interval=False, options=options
        )
        self._prune_memories()
        return path

    def _due(self, step):
        latest = self.latest_checkpoint
        last = int(latest.rsplit("-", 1)[1]) if latest else 0
        return step - last >= self.checkpoint_interval

    def _prune_memories(self):
        kept = {os.path.basename(path) for path in self.checkpoints}
        pattern = os.path.join(self.directory, "ckpt-*.memories-*")
        for path in tf.io.gfile.glob(pattern):
            if os.path.basename(path).split(".memories-")[0] not in kept:
                tf.io.gfile.remove(path)

    def restore_or_initialize(self):
        """Restores the newest checkpoint, or initializes the model.

        Returns:
            The prefix of the checkpoint restored, or None.

        Raises:
            ValueError: if it cannot be read or belongs to another run.
        """
        if self.latest_checkpoint is None:
            return super().restore_or_initialize()
        self.restore_from(self.latest_checkpoint)
        return self.latest_checkpoint

    def restore_from(self, path):
        """Restores a checkpoint and tells the trainer to go on from it.

        Args:
            path: prefix of the files.

        Raises:
            ValueError: if it cannot be read or belongs to another run.
        """
        check_variables(
            path,
            {
                "model": self._trainer.model_variables,
                "optimizer": self._trainer.optimizer_variables,
            },
        )
        # Before anything is overwritten.
        self._trainer.check_run(path, read_description(path))
        restore(self.checkpoint, path).assert_consumed()
        self._trainer.resume(path)


def check_variables(path, groups):
    """Compares the variables of a checkpoint with those of the program.

    TensorFlow restores what fits and is silent, or fills pages, about the
    rest.

    Args:
        path: prefix of the checkpoint.
        groups: dict from "model" or "optimizer" to dicts of raw variables by
            path.

    Raises:
        ValueError: naming the first variable that is missing, extra or of
            another shape or dtype, and how many there are.
    """
    reader = _reader(path)
    shapes = reader.get_variable_to_shape_map()
    dtypes = reader.get_variable_to_dtype_map()
    wrong = []
    for group, variables in groups.items():
        keys = {
            f"{group}/{_escape(name)}{_VALUE}": (name, variable)
            for name, variable in variables.items()
        }
        saved = {
            key
            for key in shapes
            if key.startswith(f"{group}/") and key.endswith(_VALUE)
        }
        wrong += [f"lacks {keys[key][0]}" for key in keys if key not in saved]
        wrong += [
            f"has {key.removesuffix(_VALUE).replace('.S', '/')}, which is "
            "none of this run's"
            for key in sorted(saved - set(keys))
        ]
        for key, (name, variable) in keys.items():
            if key not in saved:
                continue
            ours = (tuple(variable.shape), variable.dtype.base_dtype.name)
            theirs = (tuple(shapes[key]), dtypes[key].name)
            if ours != theirs:
                wrong.append(
                    f"has {name} as {theirs[1]} {list(theirs[0])}, not "
                    f"{ours[1]} {list(ours[0])}"
                )
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if wrong[1:] else ""
        raise ValueError(
            f"checkpoint {path} is of another model: it {wrong[0]}{more}."
        )


def read_description(path) -> dict:
    """Reads what a checkpoint says of its run.

    Args:
        path: prefix of the checkpoint.

    Returns:
        A dict, empty where the checkpoint says nothing.

    Raises:
        ValueError: if it cannot be read, or is of a newer format.
    """
    reader = _reader(path)
    if not reader.has_tensor(_DESCRIPTION):
        return {}
    try:
        description = json.loads(reader.get_tensor(_DESCRIPTION))
    except READ_ERRORS as error:
        raise _unreadable(path, error) from None
    if description and description["format"] != _FORMAT:
        raise ValueError(
            f"checkpoint {path} has format {description['format']}; this "
            f"release reads format {_FORMAT}."
        )
    return description


def restore(checkpoint, path):
    """Restores a checkpoint, with one-line errors.

    Args:
        checkpoint: tf.train.Checkpoint.
        path: prefix of the files.

    Returns:
        The load status.

    Raises:
        ValueError: if the files are torn.
    """
    try:
        return checkpoint.restore(path)
    except READ_ERRORS as error:
        raise _unreadable(path, error) from None


_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_DESCRIPTION = "run/.ATTRIBUTES/py_state"


def _escape(name):
    # As TensorFlow's object graph names its children.
    return name.replace(".", "..").replace("/", ".S")


def _reader(path):
    try:
        return tf.train.load_checkpoint(path)
    except READ_ERRORS as error:
        raise _unreadable(path, error) from None


def _unreadable(path, error):
    return ValueError(f"checkpoint {path} cannot be read: {_reason(error)}")


def write_memories(prefix, strategy, memories):
    """Writes the memories of this host's replicas beside a checkpoint.

    Args:
        prefix: prefix of the checkpoint.
        strategy: the tf.distribute.Strategy.
        memories: dict of per-replica tensors.
    """
    tensors = {}
    for name, value in memories.items():
        replicas = strategy.experimental_local_results(value)
        for replica, tensor in enumerate(replicas):
            tensors[f"replica_{replica:02d}/{name}"] = tensor
    tf.raw_ops.SaveV2(
        prefix=_memories_prefix(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )


def read_memories(prefix, num_replicas) -> list[dict] | None:
    """Reads what `write_memories` wrote.

    Args:
        prefix: prefix of the checkpoint.
        num_replicas: replicas of this host.

    Returns:
        A dict of NumPy arrays for each replica; None where there is no file.

    Raises:
        ValueError: if the file is torn.
    """
    prefix = _memories_prefix(prefix)
    if not tf.io.gfile.exists(prefix + ".index"):
        return None
    try:
        reader = tf.train.load_checkpoint(prefix)
        replicas = [{} for _ in range(num_replicas)]
        for key in reader.get_variable_to_shape_map():
            replica, name = key.split("/", 1)
            replicas[int(replica.removeprefix("replica_"))][name] = (
                reader.get_tensor(key)
            )
    except READ_ERRORS as error:
        raise ValueError(
            f"memories {prefix} cannot be read: {_reason(error)}"
        ) from None
    return replicas


def _memories_prefix(prefix):
    return f"{prefix}.memories-00000-of-00001"


def _reason(error) -> str:
    text = getattr(error, "message", None) or str(error)
    return " ".join(text.split())


def log_cold_start(reason):
    """Says that memories start empty although a checkpoint was restored."""
    logging.warning("memories start empty: %s.", reason)
