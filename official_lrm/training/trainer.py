"""The trainer that carries memories."""

import dataclasses
import math
import time

import tensorflow as tf
from official.core import base_trainer

from official_lrm.progress import ProgressLine
from official_lrm.tasks.gradient_accumulation import check_groups
from official_lrm.training.checkpoint_contents import variables_by_path
from official_lrm.training.evaluation import Evaluator, fresh_memories
from official_lrm.training.memory_files import read_memories
from official_lrm.training.run_description import RunDescription
from official_lrm.training.scored_text import ScoredText
from official_lrm.training.workers import Workers

# Logs of the last step of a host loop, the same on every replica.
_LAST_STEP = ("learning_rate", "gradient_norm")


class _Silence:
    """A stream of a worker that leaves reporting to the chief."""

    def isatty(self):
        return False

    def write(self, text):
        """Writes nothing."""

    def flush(self):
        """Does nothing."""


# Settings that say how a model begins, or are described for themselves.
_NOT_OF_THE_MODEL = (
    "spans",
    "initializer_stddev",
    "projection_initializer_stddev",
)


class LanguageModelTrainer(base_trainer.Trainer):
    """Model Garden's trainer with memories as loop variables.

    Memories are per-replica values: carried functionally from step to step
    and from host loop to host loop, never read or written by evaluation.
    Dropout is drawn from (seed, step, replica).

    Args:
        config: ExperimentConfig.
        settings: the RunSettings that it resolves to.
        task: LanguageModelingTask.
        model: TransformerXLLanguageModel, made in the strategy's scope.
        optimizer: built for the model's variables in the strategy's scope.
        train: whether `train` will be called.
        evaluate: whether `evaluate` will be called.
        stop: a StopRequest that `train` and `evaluate` heed, or None.
    """

    def __init__(
        self,
        config,
        settings,
        task,
        model,
        optimizer,
        train=True,
        evaluate=True,
        stop=None,
    ):
        strategy = tf.distribute.get_strategy()
        for name, lanes, wanted in (
            ("train_data", settings.train.num_lanes, train),
            ("validation_data", settings.validation.num_lanes, evaluate),
        ):
            if wanted and lanes % strategy.num_replicas_in_sync:
                raise ValueError(
                    f"task.{name}.global_batch_size must be a multiple of the "
                    f"{strategy.num_replicas_in_sync} replicas; got {lanes}."
                )
        if train:
            check_groups(
                settings.gradient_accumulation_steps,
                settings.train.num_lanes // strategy.num_replicas_in_sync,
            )
        super().__init__(
            config, task, model, optimizer, train=train, evaluate=evaluate
        )
        self._settings = settings
        self._memories = None
        self._workers = Workers(strategy)
        self._stop_flag = stop.flag if stop else tf.constant(False)
        #: Whether training was asked to stop, and did.
        self.stopped = False
        self._evaluator = Evaluator(model, strategy, self._stop_flag)
        self._loop = tf.function(self._run_loop)
        self._description = RunDescription(self._describe() if train else {})
        self.model_variables = variables_by_path(model.variables)
        self.optimizer_variables = variables_by_path(optimizer.variables)
        self._checkpoint = tf.train.Checkpoint(
            global_step=self.global_step,
            model=self.model_variables,
            optimizer=self.optimizer_variables,
            run=self._description,
        )
        self._progress = None
        self._loops, self._tokens, self._seconds = 0, 0, 0.0

    @property
    def tokens_per_second(self):
        """Mean over this process's training, None where it did not train.

        The first host loop, which compiles, does not count if there are more.
        """
        return self._tokens / self._seconds if self._seconds else None

    @property
    def memories(self):
        """Dict of per-replica tensors, None before the first step."""
        return self._memories

    def local_memories(self) -> list[dict]:
        """Memories of each of this process's replicas, [] before the start."""
        results = self.strategy.experimental_local_results
        values = {
            name: results(value)
            for name, value in (self._memories or {}).items()
        }
        return [
            dict(zip(values, tensors, strict=True))
            for tensors in zip(*values.values(), strict=True)
        ]

    def _describe(self) -> dict:
        lanes, settings = self._settings.train, self._settings
        return {
            "corpus": self.task.corpus.name,
            "corpus_fingerprint": self.task.corpus.fingerprint,
            "split": lanes.split,
            "num_lanes": lanes.num_lanes,
            "segment_length": lanes.segment_length,
            "max_tokens": lanes.max_tokens,
            "num_replicas": self._workers.num_replicas,
            "memory_files": self._workers.num_hosts,
            "spans": list(self.model.spans),
            "dtype_policy": settings.dtype_policy,
            "model": {
                name: value
                for name, value in settings.model.items()
                if name not in _NOT_OF_THE_MODEL
            },
            "seed": settings.seed,
            "gradient_accumulation_steps": settings.gradient_accumulation_steps,
            "optimizer": dataclasses.asdict(settings.optimizer),
        }

    def check_run(self, path, restored):
        """Refuses a checkpoint that this run cannot go on from.

        Args:
            path: prefix of the checkpoint.
            restored: what it says of its run.

        Raises:
            ValueError: if it was trained on another text.
        """
        self._description.check(path, restored)

    def resume(self, path):
        """Goes on from a checkpoint that was just restored.

        Args:
            path: prefix of the checkpoint.

        Raises:
            UnreadableCheckpointError: if its memories are torn.
        """
        self._train_iter = None
        self._memories = None
        if not self._description.memories_go_on():
            return
        lanes = self._settings.train.num_lanes // self._workers.num_replicas
        replicas = read_memories(
            path,
            self._description.restored,
            self._workers,
            self.model.memory_specs(lanes),
        )
        first = self._workers.local_replicas().start
        values = {
            name: self.strategy.experimental_distribute_values_from_function(
                lambda context, name=name: replicas[
                    context.replica_id_in_sync_group - first
                ][name]
            )
            for name in replicas[0]
        }
        # On the replicas' devices, and of the type that a step returns.
        self._memories = tf.function(self.strategy.run)(
            lambda values: tf.nest.map_structure(tf.identity, values),
            args=(values,),
        )

    def train(self, num_steps):
        """Runs a host loop, to its end or until it is to stop.

        Args:
            num_steps: scalar int32 tensor.

        Returns:
            A dict of scalars: `training_loss` in nats per token, `bpc` (of
            characters only), `learning_rate` that was applied and
            `gradient_norm` before clipping (both of the last step),
            `tokens_per_second`.

        Raises:
            ValueError: if loss or gradient are not finite any more.
        """
        if self._train_iter is None:
            self._start()
        start, first_step = time.monotonic(), int(self.global_step.numpy())
        loss, last, self._memories, stopped = self._loop(
            self._train_iter, num_steps, self._memories
        )
        self.stopped = bool(stopped)
        step = int(self.global_step.numpy())
        loss = float(loss) / (step - first_step)
        seconds = time.monotonic() - start
        lanes = self._settings.train
        tokens = (step - first_step) * lanes.num_lanes * lanes.segment_length
        if self._loops == 1:
            self._tokens, self._seconds = 0, 0.0
        self._loops += 1
        self._tokens += tokens
        self._seconds += seconds
        last = {name: float(value) for name, value in last.items()}
        # The norm too: it tells of weights that the next loss would be of.
        if not math.isfinite(loss + last["gradient_norm"]):
            raise ValueError(
                f"the loss is {loss} after step {step}, the gradient's norm "
                f"{last['gradient_norm']}; nothing was saved since the last "
                "checkpoint. Lower trainer.optimizer_config.learning_rate."
                "cosine.initial_learning_rate, now "
                f"{self._settings.optimizer.learning_rate:g}, or warm up "
                "longer."
            )
        logs = {"training_loss": loss}
        if self.task.tokenizer.unit == "character":
            logs["bpc"] = loss / math.log(2)
            figure = f"{logs['bpc']:.3f} bpc"
        else:
            figure = f"{math.exp(min(loss, 700.0)):.1f} perplexity"
        rate = tokens / seconds
        self._progress.update(step, f"{figure}  {rate:,.0f} tokens/s")
        return {**logs, **last, "tokens_per_second": rate}

    def close_progress(self):
        """Ends the progress line, before something else is printed."""
        if self._progress is not None:
            self._progress.close()

    def _start(self):
        strategy, lanes = self.strategy, self._settings.train
        step = int(self.global_step.numpy())
        dataset = self.distribute_dataset(
            self.task.build_inputs,
            self.config.task.train_data,
            start_step=step,
        )
        self._train_iter = iter(dataset)
        if self._memories is None:
            self._memories = fresh_memories(
                self.model, strategy, lanes.num_lanes
            )
        self._progress = self._progress_line(
            "train", self._settings.train_steps
        )

    def _run_loop(self, iterator, num_steps, memories):
        loss = tf.zeros((), tf.float64)
        last = {name: tf.zeros((), tf.float32) for name in _LAST_STEP}
        stop = tf.constant(False)
        for _ in tf.range(num_steps):
            if stop:
                break
            logs = self.strategy.run(
                self._replica_step,
                args=(next(iterator), memories, tf.identity(self._stop_flag)),
            )
            memories = logs["memories"]
            total = tf.distribute.ReduceOp.SUM
            loss += self.strategy.reduce(total, logs["loss"], axis=None)
            # All stop after the same step, whoever was asked to.
            asked = self.strategy.reduce(total, logs["stop"], axis=None)
            stop = asked > 0
            last = {
                name: self.strategy.experimental_local_results(logs[name])[0]
                for name in _LAST_STEP
            }
        return loss, last, memories, stop

    def _replica_step(self, inputs, memories, stop):
        logs = self.task.train_step(
            {**inputs, "memories": memories, "seed": self._dropout_seed()},
            model=self.model,
            optimizer=self.optimizer,
            clip=self._settings.optimizer.clip_norm,
            gradient_accumulation_steps=(
                self._settings.gradient_accumulation_steps
            ),
        )
        self.global_step.assign_add(1)
        return {
            "loss": tf.cast(logs["loss"], tf.float64),
            "memories": logs["memories"],
            "stop": tf.cast(stop, tf.int32),
            **{name: tf.cast(logs[name], tf.float32) for name in _LAST_STEP},
        }

    def _dropout_seed(self):
        # A function of (run seed, step, replica), in replica context.
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        fold_in = tf.random.experimental.stateless_fold_in
        seed = tf.constant([self._settings.seed, 0], tf.int32)
        seed = fold_in(seed, tf.cast(self.global_step.read_value(), tf.int32))
        return fold_in(seed, tf.cast(replica, tf.int32))

    def evaluate(self, num_steps):
        """Scores `task.validation_data` from fresh memories.

        Prints the figure of the unit with its protocol, which says where it
        is that of a subset.

        Args:
            num_steps: segments of each lane at most, a scalar tensor; -1 =
                all.

        Returns:
            A dict of scalars: `validation_loss` in nats per token, `bpc`
            where tokens are characters, `perplexity`, `tokens` scored and
            `split_tokens`, how many there are.

        Raises:
            StoppedError: if it is to stop.
        """
        self.close_progress()
        lanes = self.task.evaluation_lanes()
        num_steps = int(num_steps)
        max_steps = None if num_steps < 0 else num_steps
        steps = lanes.num_steps if max_steps is None else max_steps
        progress = self._progress_line("evaluate", min(steps, lanes.num_steps))
        result = self._evaluator.run(
            self.eval_dataset,
            lanes,
            max_steps,
            lambda step, result: progress.update(step, result.figure),
            self._validation_text(),
        )
        progress.close()
        if self._workers.is_chief:
            print(f"evaluate: {result.figure}; {result.protocol}", flush=True)
        logs = {"validation_loss": result.nats_per_token}
        if result.text.unit == "character":
            logs["bpc"] = result.bits_per_token
        return {
            **logs,
            "perplexity": result.perplexity,
            "tokens": result.tokens,
            "split_tokens": result.text.split_tokens,
        }

    def _progress_line(self, label, total):
        # One process speaks for all.
        chief = self._workers.is_chief
        return ProgressLine(label, total, None if chief else _Silence())

    def _validation_text(self):
        task, config = self.task, self.task.task_config
        # The lanes may hold the first targets only.
        split = task.tokenized(config.validation_data.split)
        return ScoredText(
            unit=task.tokenizer.unit,
            split=config.validation_data.split,
            split_tokens=len(split.tokens) - 1,
        )
