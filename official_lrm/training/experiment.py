"""Running an experiment with Model Garden's runner."""

import contextlib
import dataclasses
import functools
import os
import signal

import keras
import tensorflow as tf
from absl import logging
from official.core import task_factory, train_lib

from official_lrm.configs.settings import resolve
from official_lrm.models.presets import CONFIG_FILE
from official_lrm.training.best_preset import BestPreset, StopEarlyError
from official_lrm.training.checkpoint_files import newest_checkpoint
from official_lrm.training.checkpointing import MemoryCheckpointManager
from official_lrm.training.controller import TrainingController
from official_lrm.training.loading import read_tokenizer, write_tokenizer
from official_lrm.training.params import write_params
from official_lrm.training.run_files import UnwritableError, write_preset
from official_lrm.training.run_lock import run_lock
from official_lrm.training.stop_request import StoppedError, StopRequest
from official_lrm.training.strategies import build_strategy, check_runtime
from official_lrm.training.trainer import LanguageModelTrainer
from official_lrm.training.workers import Workers

PRESET_FOLDER = "preset"

MODES = ("train", "eval", "train_and_eval", "continuous_eval")


class _Runner(train_lib.OrbitExperimentRunner):
    """Model Garden's runner with checkpoints that hold memories."""

    def _maybe_build_checkpoint_manager(self):
        trainer = self.params.trainer
        return MemoryCheckpointManager(
            self.trainer,
            directory=self.model_dir,
            max_to_keep=trainer.max_to_keep,
            checkpoint_interval=trainer.checkpoint_interval,
            falls_back="train" in self._mode,
            disk_budget=None
            if trainer.checkpoint_disk_budget_gb is None
            else int(trainer.checkpoint_disk_budget_gb * 1e9),
        )


def run_experiment(params, mode, model_dir, strategy=None):
    """Trains and evaluates as Model Garden's `train_lib.run_experiment`.

    SIGTERM and SIGINT end training after the step in flight, which is saved.

    Args:
        params: ExperimentConfig whose task is a LanguageModelingConfig.
        mode: one of MODES.
        model_dir: where checkpoints, summaries, `params.yaml` and the final
            preset go; the same for all workers.
        strategy: tf.distribute.Strategy; by default as `params.runtime` says.

    Returns:
        The trainer; its `stopped` tells whether a signal ended it.

    Raises:
        ValueError: for a config that cannot be run, or a model_dir that
            another process trains in.
        KeyboardInterrupt: if it was SIGINT, after saving.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}; got {mode}.")
    settings = resolve(params)
    if "train" in mode and not settings.train_steps:
        raise ValueError("trainer.train_steps must be at least 1; got 0.")
    if mode == "eval" and not (
        params.task.init_checkpoint or newest_checkpoint(model_dir)
    ):
        raise FileNotFoundError(
            f"{model_dir} holds no checkpoint to evaluate; train first, or "
            "give --init_from."
        )
    if strategy is None:
        strategy = build_strategy(params.runtime)
    workers, stop = Workers(strategy), StopRequest()
    keras.config.set_dtype_policy(settings.dtype_policy)
    keras.utils.set_random_seed(settings.seed)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_naming_last_checkpoint(workers, model_dir))
        stack.enter_context(strategy.scope())
        task = task_factory.get_task(params.task, logging_dir=model_dir)
        _adopt_tokenizer(task, mode, model_dir)
        logging.info("corpus: %s", task.corpus.description)
        if workers.is_chief:
            print(describe_tokens(task))
        trainer = build_trainer(params, settings, task, mode, stop)
        best = _best_preset(
            params, settings, task, trainer, mode, model_dir, workers
        )
        if "train" in mode and workers.is_chief:
            stack.enter_context(run_lock(model_dir))
        runner = _Runner(
            strategy,
            task,
            mode,
            params,
            model_dir,
            save_summary=workers.is_chief,
            trainer=trainer,
            controller_cls=functools.partial(
                TrainingController, train_steps=settings.train_steps, best=best
            ),
            eval_actions=[best] if best else None,
        )
        if "train" not in mode:
            runner.run()
        else:
            with stop.listening():
                _train(runner, settings, best, workers, model_dir)
    if stop.signal is signal.SIGINT:
        raise KeyboardInterrupt
    if best and best.summary and workers.is_chief:
        print(f"best model: {best.summary}")
    return trainer


def _train(runner, settings, best, workers, model_dir):
    trainer, params = runner.trainer, runner.params
    step = int(trainer.global_step.numpy())
    finished = step >= settings.train_steps
    if step and params.task.init_checkpoint:
        logging.warning(
            "%s is not read: the run goes on from step %d of %s.",
            params.task.init_checkpoint,
            step,
            model_dir,
        )
    if not step and best:
        best.forget()
    if finished:
        logging.warning(
            "nothing to train: %s is at step %d, trainer.train_steps is %d.",
            model_dir,
            step,
            settings.train_steps,
        )
    elif workers.is_chief:
        # Not before the checkpoint was found to be this run's: a refused run
        # must leave the folder as it was.
        write_tokenizer(trainer.task.tokenizer, model_dir)
        write_params(params, model_dir)
    try:
        if best and step >= best.last_step:
            best.check()
        due = finished or step % params.trainer.validation_interval == 0
        if best and due and step > best.last_step:
            # It was saved, and killed before it was evaluated.
            runner.controller.evaluate(params.trainer.validation_steps)
        if not finished:
            runner.run()
    except StopEarlyError as error:
        print(error)
    except StoppedError as error:
        if workers.is_chief:
            print(error)
        return
    finally:
        trainer.close_progress()
    preset = os.path.join(model_dir, PRESET_FOLDER)
    trained = int(trainer.global_step.numpy()) > step
    missing = not tf.io.gfile.exists(os.path.join(preset, CONFIG_FILE))
    if workers.is_chief and (trained or missing):
        write_preset(trainer.model, trainer.task.tokenizer, preset)


@contextlib.contextmanager
def _naming_last_checkpoint(workers, model_dir):
    """Tells of a full disk or a lost worker, and what is left to go on from.

    In whatever this process does with others.
    """
    try:
        yield
    except UnwritableError as error:
        last = newest_checkpoint(model_dir) or "none"
        raise ValueError(
            f"{error} The last good checkpoint is {last}."
        ) from None
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        if workers.num_processes == 1:
            raise
        # TensorFlow's own text is pages long and names no worker.
        logging.debug(error.message)
        last = newest_checkpoint(model_dir) or "none"
        raise ValueError(
            "another worker was lost; start all of them again to go on from "
            f"the last checkpoint, {last}."
        ) from None


def _best_preset(params, settings, task, trainer, mode, model_dir, workers):
    subdir = params.trainer.best_checkpoint_export_subdir
    if not subdir or mode in ("train", "eval"):
        return None
    patience = params.trainer.early_stopping_patience
    if patience and mode == "continuous_eval":
        logging.warning(
            "trainer.early_stopping_patience=%d is not for continuous_eval, "
            "which ends no training.",
            patience,
        )
        patience = 0
    figure = {
        "corpus": task.corpus.fingerprint,
        **dataclasses.asdict(settings.validation),
        "validation_steps": params.trainer.validation_steps,
        "spans": list(settings.spans),
    }
    return BestPreset(trainer, model_dir, subdir, figure, patience, workers)


def check_run(params, mode="train_and_eval") -> str:
    """Finds out, without training, whether a config can be run.

    Args:
        params: ExperimentConfig.
        mode: one of MODES.

    Returns:
        Lines about the corpus, its tokens and its lanes.

    Raises:
        ValueError: naming what cannot be run.
        FileNotFoundError: if the text is missing.
    """
    if not resolve(params).train_steps:
        raise ValueError("trainer.train_steps must be at least 1; got 0.")
    check_runtime(params.runtime)
    task = task_factory.get_task(params.task)
    train = task.training_lanes()
    validation = ""
    if "eval" in mode:
        targets = task.evaluation_lanes().num_targets
        validation = f"; {targets:,} validation targets"
    return (
        f"corpus: {task.corpus.description}\n"
        f"{describe_tokens(task)}\n"
        f"lanes:  {train.steps_per_pass:,} steps a pass over "
        f"{train.num_tokens:,} tokens{validation}"
    )


def _adopt_tokenizer(task, mode, model_dir):
    # Where a run does not make its own: the text that is evaluated may be
    # another one, and the preset that training began with may be gone.
    makes_its_own = "train" in mode and not task.task_config.init_checkpoint
    if not makes_its_own and newest_checkpoint(model_dir):
        task.use_tokenizer(read_tokenizer(model_dir), model_dir)


def describe_tokens(task) -> str:
    """Tells in one line what the ids of a task stand for.

    Args:
        task: LanguageModelingTask.
    """
    size = task.task_config.model.vocab_size
    used = task.tokenizer.vocab_size
    kind = task.task_config.corpus.tokenizer
    spare = f"; {size - used} ids of {size} stand for nothing"
    return f"tokens: {used} {kind}{spare if used < size else ''}"


def build_trainer(params, settings, task, mode="train_and_eval", stop=None):
    """Builds model, optimizer and trainer in the current strategy's scope.

    Args:
        params: ExperimentConfig.
        settings: the RunSettings it resolves to.
        task: LanguageModelingTask.
        mode: one of MODES.
        stop: a StopRequest to heed, or None.

    Returns:
        A LanguageModelTrainer.
    """
    model = task.build_model()
    optimizer = task.create_optimizer(settings.optimizer)
    # Built lazily inside the loop it fails under two replicas.
    optimizer.build(model.trainable_variables)
    return LanguageModelTrainer(
        params,
        settings,
        task,
        model,
        optimizer,
        train="train" in mode,
        evaluate="eval" in mode,
        stop=stop,
    )
