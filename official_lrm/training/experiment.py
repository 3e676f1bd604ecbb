"""Running an experiment with Model Garden's runner."""

import os

import keras
import orbit
import tensorflow as tf
from absl import logging
from official.common import distribute_utils
from official.core import task_factory, train_lib

from official_lrm.configs.settings import resolve
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
    """Orbit's controller; progress is the trainer's own line."""

    def __init__(self, *, summary_interval=None, **kwargs):
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

    def evaluate_continuously(self, steps=-1, timeout=None, timeout_fn=None):
        """Evaluates each new checkpoint, the last one being the end."""
        output = None
        for path in tf.train.checkpoints_iterator(
            self.checkpoint_manager.directory,
            timeout=timeout,
            timeout_fn=timeout_fn,
        ):
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
                break
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
        best = None
        if params.trainer.best_checkpoint_export_subdir and mode != "eval":
            best = BestPreset(
                trainer,
                model_dir,
                params.trainer.best_checkpoint_export_subdir,
                params.trainer.early_stopping_patience,
            )
        runner = _Runner(
            strategy,
            task,
            mode,
            params,
            model_dir,
            trainer=trainer,
            controller_cls=_Controller,
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
        if step >= settings.train_steps:
            logging.warning(
                "nothing to train: %s is at step %d, trainer.train_steps is "
                "%d.",
                model_dir,
                step,
                settings.train_steps,
            )
            return trainer
        # Not before the checkpoint was found to be this run's: a refused run
        # must leave the folder as it was.
        write_tokenizer(task.tokenizer, model_dir)
        write_params(params, model_dir)
    try:
        if best:
            best.check()
        runner.run()
    except StopEarlyError as error:
        print(error)
    trainer.close_progress()
    if "train" in mode:
        preset = os.path.join(model_dir, PRESET_FOLDER)
        write_preset(trainer.model, task.tokenizer, preset)
    if best and best.summary:
        print(f"best model: {best.summary}")
    return trainer


def check_run(params) -> str:
    """Finds out, without training, whether a config can be run.

    Args:
        params: ExperimentConfig.

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
    train, validation = task.training_lanes(), task.evaluation_lanes()
    return (
        f"corpus: {task.corpus.description}\n"
        f"{describe_tokens(task)}\n"
        f"lanes:  {train.steps_per_pass:,} steps a pass over "
        f"{train.num_tokens:,} tokens; {validation.num_targets:,} validation "
        "targets"
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
