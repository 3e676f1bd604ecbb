"""Keeping the weights that did best on the validation split."""

import json
import math
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
    step and the loss. A resumed run goes on from what is there, if it is of
    the same text, evaluated in the same way.

    Args:
        trainer: a LanguageModelTrainer.
        model_dir: folder of the run.
        subdir: name of the preset's folder in it.
        figure: JSON-ready dict of what the loss is of: text, lanes, spans.
        patience: evaluations in a row without a better one, after which
            `check` ends training; 0 = never.
        workers: the Workers of the run, of which the chief writes; None = it
            is this process alone.
    """

    def __init__(
        self, trainer, model_dir, subdir, figure, patience=0, workers=None
    ):
        self._alone = workers is None or workers.num_processes == 1
        self._writes = workers is None or workers.is_chief
        self._trainer = trainer
        self._model_dir = os.path.join(model_dir, subdir)
        # As it comes back from a file.
        self._figure = json.loads(json.dumps(figure))
        self._patience = patience
        self._record = self._read()

    @property
    def last_step(self) -> int:
        """The step that was evaluated last, 0 if there is none."""
        return self._record["last_step"] if self._record else 0

    @property
    def summary(self) -> str:
        """Where the best weights are and how good; "" if there are none."""
        if self._record is None:
            return ""
        return (
            f"{self._model_dir} (step {self._record['step']:,}, "
            f"{self._record['validation_loss']:.4f} nats)"
        )

    def forget(self):
        """Begins anew: what is there is of an earlier run."""
        if self._record is not None:
            logging.warning(
                "%s is of an earlier run in this folder and is not compared "
                "with this one.",
                self._model_dir,
            )
        self._record = None

    def __call__(self, output):
        """Compares an evaluation with the best so far.

        Args:
            output: dict with `validation_loss`, nats per token.
        """
        step = int(self._trainer.global_step.numpy())
        loss = float(output["validation_loss"])
        if self._record is not None and self._alone:
            # Another process may evaluate the same run. (Workers must not
            # see what their chief has written meanwhile.)
            self._record = self._read() or self._record
        best = self._record
        if best is not None and step <= best["last_step"]:
            return  # Evaluated before it was resumed.
        if not math.isfinite(loss):
            if best is None:
                return
            loss = math.inf
        if best is None or loss < best["validation_loss"]:
            if self._writes:
                write_preset(
                    self._trainer.model,
                    self._trainer.task.tokenizer,
                    self._model_dir,
                )
            best = {"step": step, "validation_loss": loss, "worse_since": 0}
        else:
            best = {**best, "worse_since": best["worse_since"] + 1}
        self._record = {**best, "last_step": step, "figure": self._figure}
        # After the weights: a run that dies in between writes them again.
        if self._writes:
            text = json.dumps(self._record) + "\n"
            write_file(self._model_dir, BEST_FILE, text)

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

    def _read(self):
        path = os.path.join(self._model_dir, BEST_FILE)
        record = _read(path)
        if record is None or record["figure"] == self._figure:
            return record
        changed = ", ".join(
            f"{name} was {record['figure'].get(name)} and is {value}"
            for name, value in self._figure.items()
            if record["figure"].get(name) != value
        )
        logging.warning("%s is begun again: %s.", self._model_dir, changed)
        return None


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
            "figure": dict(record["figure"]),
        }
    except (ValueError, KeyError, TypeError, tf.errors.OpError) as error:
        logging.warning("%s is damaged and begun again: %s", path, error)
        return None
