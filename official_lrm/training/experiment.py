"""Running an experiment with Model Garden's runner."""

import dataclasses
import functools
import os

import keras
import orbit
import tensorflow as tf
from absl import logging
from official.common import distribute_utils
from official.core import task_factory, train_lib

from official_lrm.configs.settings import resolve
from official_lrm.models.presets import CONFIG_FILE
from official_lrm.training.best_preset import BestPreset, StopEarlyError
from official_lrm.training.checkpointing import MemoryCheckpointManager
from official_lrm.training.loading import (
    check_tokenizer,
    read_tokenizer,
    write_tokenizer,
)
from official_lrm.training.params import write_params
from official_lrm.training.run_files import write_preset
from official_lrm.training.trainer import LanguageModelTrainer

PRESET_FOLDER = "preset"

MODES = ("train", "eval", "train_and_eval", "continuous_eval")


class _Controller(orbit.Controller):
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
        super().__init__(summary_interval=summary_interval, **kwargs)

    def _train_n_steps(self, num_steps):
        with self.summary_manager.summary_writer().as_default():
            output = self.trainer.train(tf.constant(num_steps, tf.int32))
        for action in self.train_actions:
            action(output)
        if int(self.global_step) % self._write_interval == 0:
            self.summary_manager.write_summaries(output)
            self.summary_manager.flush()

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
        """
        # The last evaluation may take hours, and Orbit saves after it.
        is_last = int(self.global_step.numpy()) >= self._train_steps
        if self.trainer is not None and is_last:
            self._maybe_save_checkpoint(check_interval=False)
        output = super().evaluate(steps)
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
            except ValueError:
                # The training beside it keeps the newest only.
                if tf.io.gfile.exists(f"{path}.index"):
                    raise
                logging.warning("%s was deleted before it was read.", path)
                continue
            output = self.evaluate(steps)
            if timeout_fn is not None and timeout_fn():
                return output
        print(
            f"no new checkpoint in {folder} for {timeout} s "
            "(trainer.continuous_eval_timeout)"
        )
        return output


class _Runner(train_lib.OrbitExperimentRunner):
    """Model Garden's runner with checkpoints that hold memories."""

    def _maybe_build_checkpoint_manager(self):
        trainer = self.params.trainer
        return MemoryCheckpointManager(
            self.trainer,
            directory=self.model_dir,
            max_to_keep=trainer.max_to_keep,
            checkpoint_interval=trainer.checkpoint_interval,
        )


def run_experiment(params, mode, model_dir, strategy=None):
    """Trains and evaluates as Model Garden's `train_lib.run_experiment`.

    Args:
        params: ExperimentConfig whose task is a LanguageModelingConfig.
        mode: one of MODES.
        model_dir: where checkpoints, summaries, `params.yaml` and the final
            preset go.
        strategy: tf.distribute.Strategy; by default as `params.runtime` says.

    Returns:
        The trainer.

    Raises:
        ValueError: for a config that cannot be run.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}; got {mode}.")
    settings = resolve(params)
    if "train" in mode and not settings.train_steps:
        raise ValueError("trainer.train_steps must be at least 1; got 0.")
    if mode == "eval" and not (
        params.task.init_checkpoint or tf.train.latest_checkpoint(model_dir)
    ):
        raise FileNotFoundError(
            f"{model_dir} holds no checkpoint to evaluate; train first, or "
            "give --init_from."
        )
    if strategy is None:
        strategy = build_strategy(params.runtime)
    keras.config.set_dtype_policy(settings.dtype_policy)
    keras.utils.set_random_seed(settings.seed)
    with strategy.scope():
        task = task_factory.get_task(params.task, logging_dir=model_dir)
        _adopt_tokenizer(task, mode, model_dir)
        logging.info("corpus: %s", task.corpus.description)
        print(describe_tokens(task))
        trainer = build_trainer(params, settings, task, mode)
        best = _best_preset(params, settings, task, trainer, mode, model_dir)
        runner = _Runner(
            strategy,
            task,
            mode,
            params,
            model_dir,
            trainer=trainer,
            controller_cls=functools.partial(
                _Controller, train_steps=settings.train_steps, best=best
            ),
            eval_actions=[best] if best else None,
        )
    step = int(trainer.global_step.numpy())
    if "train" in mode:
        if step and params.task.init_checkpoint:
            logging.warning(
                "%s is not read: the run goes on from step %d of %s.",
                params.task.init_checkpoint,
                step,
                model_dir,
            )
        if not step and best:
            best.forget()
        if step >= settings.train_steps:
            logging.warning(
                "nothing to train: %s is at step %d, trainer.train_steps is "
                "%d.",
                model_dir,
                step,
                settings.train_steps,
            )
        else:
            # Not before the checkpoint was found to be this run's: a refused
            # run must leave the folder as it was.
            write_tokenizer(task.tokenizer, model_dir)
            write_params(params, model_dir)
    try:
        if best and step >= best.last_step:
            best.check()
        if "train" not in mode or step < settings.train_steps:
            runner.run()
        elif best and "eval" in mode and step > best.last_step:
            # It was killed in its last evaluation.
            with strategy.scope():
                runner.controller.evaluate(params.trainer.validation_steps)
    except StopEarlyError as error:
        print(error)
    trainer.close_progress()
    if "train" in mode:
        preset = os.path.join(model_dir, PRESET_FOLDER)
        trained = int(trainer.global_step.numpy()) > step
        if trained or not tf.io.gfile.exists(os.path.join(preset, CONFIG_FILE)):
            write_preset(trainer.model, task.tokenizer, preset)
    if best and best.summary:
        print(f"best model: {best.summary}")
    return trainer


def _best_preset(params, settings, task, trainer, mode, model_dir):
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
    return BestPreset(trainer, model_dir, subdir, figure, patience)


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
    build_strategy(params.runtime)
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
    if not makes_its_own and tf.train.latest_checkpoint(model_dir):
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


def build_trainer(params, settings, task, mode="train_and_eval"):
    """Builds model, optimizer and trainer in the current strategy's scope.

    Args:
        params: ExperimentConfig.
        settings: the RunSettings it resolves to.
        task: LanguageModelingTask.
        mode: one of MODES.

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
    )


def build_strategy(runtime):
    """Builds the tf.distribute.Strategy of a Model Garden runtime config.

    Args:
        runtime: RuntimeConfig.

    Raises:
        ValueError: if it asks for devices that are not there.
    """
    visible = len(tf.config.list_physical_devices("GPU"))
    if runtime.num_gpus > visible:
        raise ValueError(
            f"runtime.num_gpus must be at most {visible}, the GPUs that "
            f"TensorFlow sees; got {runtime.num_gpus}."
        )
    if visible and not runtime.num_gpus:
        logging.warning(
            "training on the CPU: runtime.num_gpus is 0, TensorFlow sees %d.",
            visible,
        )
    return distribute_utils.get_distribution_strategy(
        distribution_strategy=runtime.distribution_strategy,
        all_reduce_alg=runtime.all_reduce_alg,
        num_gpus=runtime.num_gpus,
        num_packs=runtime.num_packs,
        tpu_address=runtime.tpu,
        **runtime.model_parallelism(),
    )
