"""Orbit's controller over a trainer that carries memories."""

import orbit
import tensorflow as tf
from absl import logging

from official_lrm.training.best_preset import StopEarlyError
from official_lrm.training.checkpoint_contents import (
    UnreadableCheckpointError,
)
from official_lrm.training.loading import check_tokenizer
from official_lrm.training.run_files import writing
from official_lrm.training.stop_request import StoppedError


class _Summaries(orbit.utils.SummaryManager):
    """Orbit's, which names its folder when it cannot be written.

    Args:
        folder: of the summaries; None = none are written.
        step: tf.Variable, the global step.
    """

    def __init__(self, folder, step):
        super().__init__(folder, tf.summary.scalar, step)
        self._folder = folder

    def write_summaries(self, summary_dict):
        with writing(self._folder):
            super().write_summaries(summary_dict)

    def flush(self):
        with writing(self._folder):
            super().flush()


class TrainingController(orbit.Controller):
    """Orbit's controller; progress is the trainer's own line.

    Args:
        train_steps: the last step.
        best: BestPreset that ends training early, or None.
        summary_interval: as Orbit's.
        **kwargs: as Orbit's.
    """

    def __init__(self, *, train_steps, best, summary_interval=None, **kwargs):
        self._train_steps = train_steps
        self._best = best
        self._write_interval = summary_interval or 1
        for name in ("summary", "eval_summary"):
            kwargs[f"{name}_manager"] = _Summaries(
                kwargs.get(f"{name}_dir"), kwargs["global_step"]
            )
        super().__init__(summary_interval=summary_interval, **kwargs)

    @property
    def steps_per_loop(self):
        """Steps to the next multiple of what the config says.

        A run that stopped within a loop is thus back in step with its
        intervals of summaries and checkpoints.
        """
        steps = super().steps_per_loop
        return steps - int(self.global_step.numpy()) % steps

    def train_and_evaluate(self, train_steps, eval_steps=-1, eval_interval=1):
        """Evaluates at each multiple of the interval and at the end.

        Orbit counts the interval from where a run was resumed: which weights
        are best would depend on when it was killed.
        """
        output = None
        step = int(self.global_step.numpy())
        while step < train_steps:
            following = (step // eval_interval + 1) * eval_interval
            step = min(following, train_steps)
            self.train(step, checkpoint_at_completion=False)
            output = self.evaluate(eval_steps)
        self._maybe_save_checkpoint(check_interval=False)
        return output

    def _train_n_steps(self, num_steps):
        with self.summary_manager.summary_writer().as_default():
            output = self.trainer.train(tf.constant(num_steps, tf.int32))
        if self.trainer.stopped:
            self._stop()
        for action in self.train_actions:
            action(output)
        if int(self.global_step.numpy()) % self._write_interval == 0:
            self.summary_manager.write_summaries(output)
            self.summary_manager.flush()

    def _stop(self):
        self.trainer.stopped = True
        self._maybe_save_checkpoint(check_interval=False)
        step = int(self.global_step.numpy())
        raise StoppedError(
            f"stopped at step {step:,}, which is saved; the same command goes "
            "on from there."
        )

    def restore_checkpoint(self, checkpoint_path=None):
        """Restores as a resumed run does, also when evaluating beside one."""
        manager = self.checkpoint_manager
        with self.strategy.scope():
            if checkpoint_path is None:
                checkpoint_path = manager.restore_or_initialize()
            else:
                manager.restore_from(checkpoint_path)
        if checkpoint_path is not None:
            # Last: that the text is another one says more.
            check_tokenizer(self.evaluator.task.tokenizer, manager.directory)
        return checkpoint_path

    def evaluate(self, steps=-1):
        """Evaluates; when training, it may end there.

        Raises:
            StopEarlyError: if evaluations do not get better.
            StoppedError: if training is to stop.
        """
        # The last evaluation may take hours, and Orbit saves after it.
        is_last = int(self.global_step.numpy()) >= self._train_steps
        if self.trainer is not None and is_last:
            self._maybe_save_checkpoint(check_interval=False)
        try:
            output = super().evaluate(steps)
        except StoppedError:
            self._stop()
        if self.trainer is not None and self._best is not None:
            try:
                self._best.check()
            except StopEarlyError:
                self._maybe_save_checkpoint(check_interval=False)
                raise
        return output

    def evaluate_continuously(self, steps=-1, timeout=None, timeout_fn=None):
        """Evaluates the newest checkpoint whenever there is a new one.

        It ends with that of the last step, or when `timeout` seconds brought
        none.
        """
        output = None
        folder = self.checkpoint_manager.directory
        print(f"waiting for checkpoints in {folder}", flush=True)
        for path in tf.train.checkpoints_iterator(folder, timeout=timeout):
            try:
                self.restore_checkpoint(path)
            except UnreadableCheckpointError as error:
                # Torn, or removed meanwhile by the training beside it.
                logging.warning("%s Waiting for the next one.", error)
                continue
            output = self.evaluate(steps)
            if timeout_fn is not None and timeout_fn():
                return output
        print(
            f"no new checkpoint in {folder} for {timeout} s "
            "(trainer.continuous_eval_timeout)"
        )
        return output
