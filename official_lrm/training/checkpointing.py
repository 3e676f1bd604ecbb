"""Checkpoints that hold everything the next training step depends on.

`ckpt-N` is a TensorFlow checkpoint of every variable of model and optimizer,
keyed by its path, with the step and a description of the run; files beside it
hold the memories (see memory_files). The memories are written first and
`ckpt-N` commits them.
"""

import tensorflow as tf
from absl import logging

from official_lrm.training.checkpoint_contents import (
    UnreadableCheckpointError,
    check_variables,
    read_description,
    reason_of,
    restore,
)
from official_lrm.training.checkpoint_files import (
    checkpoint_path,
    checkpoint_step,
    checkpoint_steps,
    newest_checkpoint,
    prune_checkpoints,
    remove_checkpoint,
    write_state,
)
from official_lrm.training.memory_files import write_memories
from official_lrm.training.workers import Workers


class MemoryCheckpointManager:
    """Saves and restores a trainer with its memories.

    It has what Orbit's controller asks of a tf.train.CheckpointManager. With
    several processes all of them save and restore together: the chief writes
    the variables, each the memories of its own replicas; a checkpoint that
    one of them cannot read is none for all.

    Args:
        trainer: a LanguageModelTrainer.
        directory: where checkpoints go, the same for all processes.
        max_to_keep: how many are kept.
        checkpoint_interval: steps between two.
        falls_back: whether an older checkpoint does where the newest cannot be
            read. To train, it does; who evaluates wants to know.
        disk_budget: bytes that the checkpoints may take between two saves;
            older ones are removed, the newest never. None = no bound.
    """

    def __init__(
        self,
        trainer,
        directory,
        max_to_keep,
        checkpoint_interval,
        falls_back=True,
        disk_budget=None,
    ):
        self.directory = directory
        self.checkpoint = trainer.checkpoint
        self.checkpoint_interval = checkpoint_interval
        self._trainer = trainer
        self._workers = Workers(trainer.strategy)
        self._max_to_keep = max_to_keep
        self._falls_back = falls_back
        self._disk_budget = disk_budget
        self._last_step = 0  # That was saved or restored.

    def sync(self):
        """Does nothing: Orbit waits here for asynchronous saves."""

    def save(self, checkpoint_number, check_interval=True, options=None):
        """Writes the memories, then the checkpoint that commits them.

        Args:
            checkpoint_number: the global step.
            check_interval: whether to save only when the interval has passed.
            options: tf.train.CheckpointOptions.

        Returns:
            The prefix of the checkpoint, or None if it was not due.

        Raises:
            ValueError: if it could not be written; older ones are intact.
        """
        step = int(checkpoint_number)
        waited = step - self._last_step
        if not waited or (check_interval and waited < self.checkpoint_interval):
            return None
        self._trainer.close_progress()  # Orbit will say that it was saved.
        path = checkpoint_path(self.directory, step)
        replicas = self._trainer.local_memories()
        self._together(path, lambda: self._clear(step))
        self._together(path, lambda: self._write_memories(path, replicas))
        self._together(path, lambda: self._commit(path, step, options))
        self._last_step = step
        return path

    def _clear(self, step):
        # What an earlier run left torn at this step must not be mixed in, by
        # no worker.
        if self._workers.is_chief:
            remove_checkpoint(self.directory, step)
        tf.io.gfile.makedirs(self.directory)

    def _write_memories(self, path, replicas):
        if replicas:
            write_memories(path, self._workers, replicas)

    def _commit(self, path, step, options):
        if not self._workers.is_chief:
            return
        self.checkpoint.write(path, options=options)
        kept = prune_checkpoints(
            self.directory, step, self._max_to_keep, self._disk_budget
        )
        write_state(self.directory, kept)

    def _together(self, path, write):
        error = None
        try:
            write()
        except (tf.errors.OpError, OSError) as raised:
            error = raised
        if not self._workers.sum(int(error is not None)):
            return
        reason = "another worker failed" if error is None else reason_of(error)
        if self._workers.is_chief:
            self._remove_torn(path)
        last = newest_checkpoint(self.directory) or "none"
        raise ValueError(
            f"checkpoint {path} could not be written: {reason}. The last good "
            f"one is {last}."
        )

    def _remove_torn(self, path):
        try:
            remove_checkpoint(self.directory, checkpoint_step(path))
        except (tf.errors.OpError, OSError) as error:
            logging.warning("%s is left torn: %s", path, reason_of(error))

    def restore_or_initialize(self):
        """Restores the newest checkpoint (that can be read), or initializes.

        Returns:
            The prefix of the checkpoint restored, or None.

        Raises:
            ValueError: if it belongs to another run, or none can be read.
        """
        steps = checkpoint_steps(self.directory)
        errors = []
        while step := self._workers.of_chief(steps.pop() if steps else 0):
            path, error = checkpoint_path(self.directory, step), None
            try:
                self.restore_from(path)
            except UnreadableCheckpointError as raised:
                if not self._falls_back:
                    raise
                error = raised
            if not self._workers.sum(int(error is not None)):
                return path
            errors.append(error or f"another worker cannot read {path}")
            logging.warning("%s Trying the one before it.", errors[-1])
        if errors:
            raise ValueError(
                f"no checkpoint of {self.directory} can be read: {errors[0]}"
            )
        self._trainer.initialize()
        return None

    def restore_from(self, path):
        """Restores a checkpoint and tells the trainer to go on from it.

        Args:
            path: prefix of the files.

        Raises:
            UnreadableCheckpointError: if its files are torn.
            ValueError: if it belongs to another run.
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
        self._last_step = int(self._trainer.global_step.numpy())
