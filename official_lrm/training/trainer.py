"""The trainer that carries memories."""

import dataclasses
import math
import time

import tensorflow as tf
from absl import logging
from official.core import base_trainer

from official_lrm.progress import ProgressLine
from official_lrm.training.checkpointing import (
    RunDescription,
    log_cold_start,
    read_memories,
    variables_by_path,
)
from official_lrm.training.evaluation import Evaluator, fresh_memories
from official_lrm.training.scored_text import ScoredText

# Logs of the last step of a host loop, the same on every replica.
_LAST_STEP = ("learning_rate", "gradient_norm")


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
        super().__init__(
            config, task, model, optimizer, train=train, evaluate=evaluate
        )
        self._settings = settings
        self._memories = None
        self._restored_memories = None
        self._evaluator = Evaluator(model, self.strategy)
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

    def _describe(self) -> dict:
        lanes, settings = self._settings.train, self._settings
        return {
            "corpus": self.task.corpus.name,
            "corpus_fingerprint": self.task.corpus.fingerprint,
            "split": lanes.split,
            "num_lanes": lanes.num_lanes,
            "segment_length": lanes.segment_length,
            "max_tokens": lanes.max_tokens,
            "num_replicas": self.strategy.num_replicas_in_sync,
            "spans": list(self.model.spans),
            "dtype_policy": settings.dtype_policy,
            "seed": settings.seed,
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
        current = self._description.current
        if not current or not restored:
            return  # An evaluator, or a checkpoint before the first step.
        for name in ("corpus_fingerprint", "split"):
            if restored[name] != current[name]:
                raise ValueError(
                    f"checkpoint {path} was trained on another text: its "
                    f"{name} is {restored[name]}, this run's "
                    f"{current[name]}. Give another --model_dir, or start "
                    "from its weights with --init_from."
                )

    def resume(self, path):
        """Goes on from a checkpoint that was just restored.

        Args:
            path: prefix of the checkpoint.
        """
        self._train_iter = None
        self._memories = self._restored_memories = None
        current = self._description.current
        restored = self._description.restored
        if not current or not restored:
            return
        for name, consequence in (
            ("seed", "dropout is drawn anew"),
            ("optimizer", "the learning rate goes on by this run's"),
        ):
            if restored[name] != current[name]:
                logging.warning(
                    "%s was %s and is %s: %s.",
                    name,
                    restored[name],
                    current[name],
                    consequence,
                )
        changed = [
            f"{name} {restored.get(name)} -> {current[name]}"
            for name in (
                "num_lanes",
                "segment_length",
                "max_tokens",
                "num_replicas",
                "spans",
                "dtype_policy",
            )
            if restored.get(name) != current[name]
        ]
        if changed:
            log_cold_start(", ".join(changed))
            return
        self._restored_memories = read_memories(
            path, self.strategy.num_replicas_in_sync
        )
        if self._restored_memories is None:
            log_cold_start(f"there are none beside {path}")

    def train(self, num_steps):
        """Runs a host loop.

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
        start = time.monotonic()
        loss, last, self._memories = self._loop(
            self._train_iter, num_steps, self._memories
        )
        loss = float(loss) / int(num_steps)
        seconds = time.monotonic() - start
        lanes = self._settings.train
        tokens = int(num_steps) * lanes.num_lanes * lanes.segment_length
        if self._loops == 1:
            self._tokens, self._seconds = 0, 0.0
        self._loops += 1
        self._tokens += tokens
        self._seconds += seconds
        step = int(self.global_step.numpy())
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
        if self._restored_memories is None:
            self._memories = fresh_memories(
                self.model, strategy, lanes.num_lanes
            )
        else:
            replicas = self._restored_memories
            self._memories = {
                name: strategy.experimental_distribute_values_from_function(
                    lambda context, name=name: tf.convert_to_tensor(
                        replicas[context.replica_id_in_sync_group][name]
                    )
                )
                for name in replicas[0]
            }
            self._restored_memories = None
        self._progress = ProgressLine("train", self._settings.train_steps)

    def _run_loop(self, iterator, num_steps, memories):
        loss = tf.zeros((), tf.float64)
        last = {name: tf.zeros((), tf.float32) for name in _LAST_STEP}
        for _ in tf.range(num_steps):
            logs = self.strategy.run(
                self._replica_step, args=(next(iterator), memories)
            )
            memories = logs["memories"]
            total = tf.distribute.ReduceOp.SUM
            loss += self.strategy.reduce(total, logs["loss"], axis=None)
            last = {
                name: self.strategy.experimental_local_results(logs[name])[0]
                for name in _LAST_STEP
            }
        return loss, last, memories

    def _replica_step(self, inputs, memories):
        logs = self.task.train_step(
            {**inputs, "memories": memories, "seed": self._dropout_seed()},
            model=self.model,
            optimizer=self.optimizer,
            clip=self._settings.optimizer.clip_norm,
        )
        self.global_step.assign_add(1)
        return {
            "loss": tf.cast(logs["loss"], tf.float64),
            "memories": logs["memories"],
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
        """
        self.close_progress()
        lanes = self.task.evaluation_lanes()
        num_steps = int(num_steps)
        max_steps = None if num_steps < 0 else num_steps
        steps = lanes.num_steps if max_steps is None else max_steps
        progress = ProgressLine("evaluate", min(steps, lanes.num_steps))
        result = self._evaluator.run(
            self.eval_dataset,
            lanes,
            max_steps,
            lambda step, result: progress.update(step, result.figure),
            self._validation_text(),
        )
        progress.close()
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

    def _validation_text(self):
        task, config = self.task, self.task.task_config
        # The lanes may hold the first targets only.
        split = task.tokenized(config.validation_data.split)
        return ScoredText(
            unit=task.tokenizer.unit,
            split=config.validation_data.split,
            split_tokens=len(split.tokens) - 1,
        )
