"""Keeping the weights that did best on the validation split."""

import json
import os

import tensorflow as tf
from absl import logging

from official_lrm.training.run_files import write_file, write_preset

BEST_FILE = "best.json"


class StopEarlyError(Exception):
    """Ends training, which did not get better any more."""


class BestPreset:
    """An Orbit action after each evaluation: keeps the best weights.

    They are a preset, `<model_dir>/<subdir>`, beside `best.json` with the
    step and the loss. A resumed run goes on from what is there.

    Args:
        trainer: a LanguageModelTrainer.
        model_dir: folder of the run.
        subdir: name of the preset's folder in it.
        patience: evaluations in a row without a better one, after which
            `StopEarlyError` is raised; 0 = never.
    """

    def __init__(self, trainer, model_dir, subdir, patience=0):
        self._trainer = trainer
        self._model_dir = os.path.join(model_dir, subdir)
        self._patience = patience
        self._record = _read(os.path.join(self._model_dir, BEST_FILE))

    @property
    def summary(self) -> str:
        """Where the best weights are and how good; "" if there are none."""
        if self._record is None:
            return ""
        return (
            f"{self._model_dir} (step {self._record['step']:,}, "
            f"{self._record['validation_loss']:.4f} nats)"
        )

    def __call__(self, output):
        """Compares an evaluation with the best so far.

        Args:
            output: dict with `validation_loss`, nats per token.

        Raises:
            StopEarlyError: `patience` evaluations were no better.
        """
        step = int(self._trainer.global_step.numpy())
        loss = float(output["validation_loss"])
        best = self._record
        if best is not None and step <= best["last_step"]:
            return  # Evaluated before it was resumed.
        if best is None or loss < best["validation_loss"]:
            write_preset(
                self._trainer.model,
                self._trainer.task.tokenizer,
                self._model_dir,
            )
            best = {"step": step, "validation_loss": loss, "worse_since": 0}
        else:
            best = {**best, "worse_since": best["worse_since"] + 1}
        self._record = {**best, "last_step": step}
        # After the weights: a run that dies in between writes them again.
        write_file(self._model_dir, BEST_FILE, json.dumps(self._record) + "\n")
        self.check()

    def check(self):
        """Tells whether training is over, also one that is started again.

        Raises:
            StopEarlyError: `patience` evaluations were no better.
        """
        best = self._record
        if self._patience and best and best["worse_since"] >= self._patience:
            raise StopEarlyError(
                f"no evaluation since step {best['step']:,} was better than "
                f"{best['validation_loss']:.4f} nats: training stops at step "
                f"{best['last_step']:,} (trainer.early_stopping_patience="
                f"{self._patience})."
            )


def _read(path):
    if not tf.io.gfile.exists(path):
        return None
    try:
        with tf.io.gfile.GFile(path) as stream:
            record = json.loads(stream.read())
        return {
            "step": int(record["step"]),
            "validation_loss": float(record["validation_loss"]),
            "worse_since": int(record["worse_since"]),
            "last_step": int(record["last_step"]),
        }
    except (ValueError, KeyError, TypeError, tf.errors.OpError) as error:
        logging.warning("%s is damaged and begun again: %s", path, error)
        return None
