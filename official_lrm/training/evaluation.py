"""Scoring a text, every target once."""

import dataclasses
import math
import time

import tensorflow as tf

from official_lrm.memory.spans import MemorySpans
from official_lrm.tasks.language_modeling import score_segment


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """What a text costs under a model.

    Attributes:
        nats: negative log-likelihood of all targets, summed in float64.
        tokens: targets scored.
        segment_length: T.
        lanes: lanes that the text was cut into.
        spans: memory length of each layer.
        same_length: whether each query saw exactly M_l keys.
        seconds: time taken.
    """

    nats: float
    tokens: int
    segment_length: int
    lanes: int
    spans: tuple
    same_length: bool
    seconds: float

    @property
    def nats_per_token(self) -> float:
        """Mean negative log-likelihood."""
        return self.nats / self.tokens

    @property
    def bits_per_token(self) -> float:
        """The same in bits: bits per character where tokens are bytes."""
        return self.nats_per_token / math.log(2)

    @property
    def perplexity(self) -> float:
        """The exponential of the mean, not the mean of exponentials."""
        return math.exp(min(self.nats_per_token, 700.0))

    @property
    def protocol(self) -> str:
        """How the figure came about, in one line."""
        return (
            f"T={self.segment_length}, {self.lanes} lane(s), "
            f"{self.tokens:,} targets, memory cold at the start, "
            f"{'same-length' if self.same_length else 'causal'} mask, "
            f"{MemorySpans(self.spans)!r}"
        )


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

    # TPUStrategy runs nothing eagerly, and would turn an argument into a
    # tensor and with it the batch size into an unknown one.
    @tf.function
    def make():
        return strategy.run(lambda: model.initial_memories(per_replica))

    return make()


class Evaluator:
    """Runs a model over lanes, with fresh memories at each call.

    Args:
        model: a TransformerXLLanguageModel.
        strategy: tf.distribute.Strategy; the current one by default.
    """

    def __init__(self, model, strategy=None):
        self._model = model
        self._strategy = strategy or tf.distribute.get_strategy()
        self._step = tf.function(self._distributed_step)

    def run(self, dataset, lanes, max_steps=None, progress=None):
        """Scores the targets of the lanes.

        Args:
            dataset: iterable of `lanes`' segments, distributed where the
                strategy is.
            lanes: the EvaluationLanes that `dataset` came from.
            max_steps: segments of each lane to score at most; None = all.
            progress: called as progress(steps done, result so far).

        Returns:
            EvaluationResult.
        """
        steps = lanes.num_steps
        if max_steps is not None:
            steps = min(steps, max_steps)
        start = time.monotonic()
        memories = fresh_memories(self._model, self._strategy, lanes.num_lanes)
        nats, tokens, result = 0.0, 0.0, None
        iterator = iter(dataset)
        for step in range(steps):
            step_nats, step_tokens, memories = self._step(
                next(iterator), memories
            )
            nats += float(step_nats)
            tokens += float(step_tokens)
            if progress is not None or step == steps - 1:
                result = EvaluationResult(
                    nats=nats,
                    tokens=int(tokens),
                    segment_length=lanes.segment_length,
                    lanes=lanes.num_lanes,
                    spans=self._model.spans.lengths,
                    same_length=self._model.same_length,
                    seconds=time.monotonic() - start,
                )
            if progress is not None:
                progress(step + 1, result)
        return result

    def _distributed_step(self, inputs, memories):
        def replica_step(inputs, memories):
            logs = score_segment({**inputs, "memories": memories}, self._model)
            return logs["nats"], logs["tokens"], logs["memories"]

        strategy = self._strategy
        nats, tokens, memories = strategy.run(
            replica_step, args=(inputs, memories)
        )
        total = tf.distribute.ReduceOp.SUM
        return (
            strategy.reduce(total, nats, axis=None),
            strategy.reduce(total, tokens, axis=None),
            memories,
        )
