"""Checkpoints that hold everything the next training step depends on.

`ckpt-N` is a TensorFlow checkpoint of every variable of model and optimizer,
keyed by its path, with the step and a description of the run;
`ckpt-N.memories-00000-of-00001` beside it holds the memories of the replicas
of one host. The memories are written first and `ckpt-N` commits them.
"""

import glob
import json
import os

import tensorflow as tf
from absl import logging

# What TensorFlow raises for files that are torn, truncated or foreign.
READ_ERRORS = (
    tf.errors.DataLossError,
    tf.errors.OutOfRangeError,
    tf.errors.NotFoundError,
    tf.errors.InvalidArgumentError,
    tf.errors.FailedPreconditionError,
    # What the checkpoint reader makes of the same in Python.
    IndexError,
    ValueError,
)


class RunDescription(tf.train.experimental.PythonState):
    """What a checkpoint says of its run: a dict kept as JSON.

    Args:
        current: the dict of the run at hand.
    """

    def __init__(self, current):
        self.current = dict(current)
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
        pattern = os.path.join(glob.escape(self.directory), "ckpt-*.memories-*")
        for path in glob.glob(pattern):
            if os.path.basename(path).split(".memories-")[0] not in kept:
                os.remove(path)

    def restore_or_initialize(self):
        """Restores the newest checkpoint, or initializes the model.

        Returns:
            The prefix of the checkpoint restored, or None.

        Raises:
            ValueError: if it cannot be read or belongs to another run.
        """
        if self.latest_checkpoint is None:
            return super().restore_or_initialize()
        path = self.latest_checkpoint
        restore(self.checkpoint, path).assert_consumed()
        self._trainer.resume(path)
        return path


def restore(checkpoint, path):
    """Restores a checkpoint, with one-line errors.

    Args:
        checkpoint: tf.train.Checkpoint.
        path: prefix of the files.

    Returns:
        The load status.

    Raises:
        ValueError: if the files are torn, or of a model of other sizes.
    """
    try:
        return checkpoint.restore(path)
    except READ_ERRORS as error:
        raise ValueError(
            f"checkpoint {path} cannot be restored: {_reason(error)}"
        ) from None


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
