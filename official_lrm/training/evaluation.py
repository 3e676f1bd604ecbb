"""Scoring a text, every target once."""

import time

import numpy as np
import tensorflow as tf

from official_lrm.tasks.language_modeling import score_segment
from official_lrm.tasks.position_buckets import NUM_BUCKETS
from official_lrm.training.evaluation_result import EvaluationResult
from official_lrm.training.scored_text import ScoredText
from official_lrm.training.stop_request import StoppedError

# What a step sums over its targets.
_SUMS = ("nats", "tokens", "position_nats", "position_tokens")


def fresh_memories(model, strategy, num_lanes):
    """Memories of lanes that have seen nothing, on every replica.

    Args:
        model: a TransformerXLLanguageModel.
        strategy: tf.distribute.Strategy.
        num_lanes: B over all replicas, a multiple of their number.

    Returns:
        A dict of per-replica tensors.
    """
    per_replica = num_lanes // strategy.num_replicas_in_sync
    return _on_replicas(strategy, lambda: model.initial_memories(per_replica))


def _on_replicas(strategy, function):
    # TPUStrategy runs nothing eagerly, and would turn an argument into a
    # tensor and with it a size into an unknown one.
    @tf.function
    def make():
        return strategy.run(function)

    # Called as it is, a sweep would be warned of retracing.
    return make.get_concrete_function()()


def projected_positions(model, strategy, segment_length):
    """What `model.project_positions` makes, on every replica.

    Args:
        model: a TransformerXLLanguageModel.
        strategy: tf.distribute.Strategy.
        segment_length: T.

    Returns:
        A tuple of per-replica tensors, of the weights as they are now.
    """
    return _on_replicas(
        strategy, lambda: model.project_positions(segment_length)
    )


class Evaluator:
    """Runs a model over lanes, with fresh memories at each call.

    Args:
        model: a TransformerXLLanguageModel.
        strategy: tf.distribute.Strategy; the current one by default.
        stop_flag: scalar bool variable that ends a run when it is True.
    """

    def __init__(self, model, strategy=None, stop_flag=None):
        self._model = model
        self._stop_flag = tf.constant(False) if stop_flag is None else stop_flag
        self._strategy = strategy or tf.distribute.get_strategy()
        self._step = tf.function(self._distributed_step)

    def run(self, dataset, lanes, max_steps=None, progress=None, text=None):
        """Scores the targets of the lanes.

        Args:
            dataset: iterable of `lanes`' segments, distributed where the
                strategy is.
            lanes: the EvaluationLanes that `dataset` came from.
            max_steps: segments of each lane to score at most; None = all.
            progress: called as progress(steps done, result so far).
            text: the ScoredText that the lanes hold; None = characters of
                which nothing else is known.

        Returns:
            EvaluationResult.

        Raises:
            StoppedError: if the stop flag was set.
        """
        steps = lanes.num_steps
        if max_steps is not None:
            steps = min(steps, max_steps)
        if text is None:
            text = ScoredText(split_tokens=lanes.num_targets)
        start = time.monotonic()
        memories = fresh_memories(self._model, self._strategy, lanes.num_lanes)
        positions = projected_positions(
            self._model, self._strategy, lanes.segment_length
        )
        shapes = {"nats": (), "tokens": ()}
        sums = {
            name: np.zeros(shapes.get(name, NUM_BUCKETS), np.float64)
            for name in _SUMS
        }
        result = None
        iterator = iter(dataset)
        for step in range(steps):
            step_sums, memories = self._step(
                next(iterator), memories, positions
            )
            if step_sums.pop("stop"):
                raise StoppedError(f"stopped at step {step + 1} of evaluation")
            for name, value in step_sums.items():
                sums[name] += value.numpy()
            if progress is not None or step == steps - 1:
                seconds = time.monotonic() - start
                result = self._result(sums, lanes, text, seconds)
            if progress is not None:
                progress(step + 1, result)
        return result

    def _result(self, sums, lanes, text, seconds):
        model = self._model
        counts = sums["position_tokens"]
        used = int(np.max(np.flatnonzero(counts), initial=-1)) + 1
        return EvaluationResult(
            nats=float(sums["nats"]),
            tokens=int(sums["tokens"]),
            segment_length=lanes.segment_length,
            lanes=lanes.num_lanes,
            spans=model.spans.lengths,
            same_length=model.same_length,
            seconds=seconds,
            is_long=model.spans.is_long,
            clamp_length=model.clamp_length,
            attend_to_empty=model.attend_to_empty,
            dtype=model.compute_dtype,
            memory_dtype=(
                None
                if model.memory_format.is_lossless
                else model.memory_format.dtype
            ),
            position_nats=tuple(sums["position_nats"][:used].tolist()),
            position_tokens=tuple(counts[:used].astype(int).tolist()),
            text=text,
        )

    def _distributed_step(self, inputs, memories, positions):
        def replica_step(inputs, memories, positions, stop):
            logs = score_segment(
                {**inputs, "memories": memories}, self._model, positions
            )
            sums = {name: logs[name] for name in _SUMS}
            # All stop at the same step, whoever was asked to.
            return {**sums, "stop": tf.cast(stop, tf.int32)}, logs["memories"]

        strategy = self._strategy
        stop = tf.identity(self._stop_flag)
        sums, memories = strategy.run(
            replica_step, args=(inputs, memories, positions, stop)
        )
        return {
            name: strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)
            for name, value in sums.items()
        }, memories
