"""Contiguous lanes: a text as batches whose rows go on from step to step.

A model that carries memory reads row b of one batch after row b of the batch
before. So a text is cut into B lanes, each a contiguous run of it, and step s
holds the s-th segment of T tokens of every lane. No segment goes across the
start of a document; there `reset` is True, and the lane's memory is to be
forgotten. (The first token of a document is still a target, that of the last
token before it: N tokens have N - 1 targets however many documents they are.)

Both classes are pure functions of the step: any batch costs the same, so a
resumed run asks for the step it needs, and nothing has to be read before it.

A `dataset` reads the tokens in Python, so in this process only. Given
`shards`, it is a graph that reads files, which also runs on the remote hosts
of a TPU and in the workers of a tf.data service, and holds the same elements.
A host then reads the shards that its lanes go through, no others.

Both `dataset` methods take `num_replicas`. A distributed iterator
(`strategy.distribute_datasets_from_function`) deals out the elements of a
worker's one dataset in turn, the first to replica 0, the next to replica 1.
Whole batches would thus give a replica every other *step*. With
`num_replicas=2` the elements are the first half of the rows of step 0, the
second half of step 0, the first half of step 1: each replica keeps its lanes.
"""

import operator

import numpy as np

from official_lrm.data.lane_datasets import (
    DatasetShape,
    read_in_graph,
    read_in_python,
)
from official_lrm.data.segments import Segments, check_starts
from official_lrm.data.token_array import TokenArray


class TrainingLanes:
    """Lanes that go round a text for ever.

    The text is R segments of T tokens, the last of each document padded. Lane
    b starts at segment (b * R) // B and reads segment ((b * R) // B + s) mod R
    at step s. When it has come to the end of the text it goes on at the
    beginning.

        before: tokens 10 11 12 13 14 15, num_lanes=2, segment_length=2
                (R = 3: segments 10 11 | 12 13 | 14, starts 0 and 1)
        after:  step   tokens          targets         weights     reset
                0      10 11 / 12 13   11 12 / 13 14   1 1 / 1 1   True / False
                1      12 13 / 14  0   13 14 / 15  0   1 1 / 1 0   False / False
                2      14  0 / 10 11   15  0 / 11 12   1 0 / 1 1   False / True
                3      10 11 / 12 13   11 12 / 13 14   1 1 / 1 1   True / False

    Args:
        tokens: integers [N], token ids.
        num_lanes: int B >= 1, rows of a batch over all replicas and workers.
        segment_length: int T >= 1, tokens of a segment.
        document_starts: integers [D] in ascending order, the first token of
            each document, that of the first being 0; None = one document.

    Raises:
        ValueError: an argument is out of range, or the text has fewer
            segments than there are lanes.
    """

    def __init__(self, tokens, num_lanes, segment_length, document_starts=None):
        tokens = TokenArray(tokens)
        self.num_tokens = len(tokens)
        self.num_lanes = _integer("num_lanes", num_lanes, 1)
        self.segment_length = _integer("segment_length", segment_length, 1)
        needed = (self.num_lanes - 1) * self.segment_length + 2
        too_few = self.num_tokens < 2
        if not too_few:
            starts = check_starts(document_starts, self.num_tokens)
            self._segments = Segments(tokens, starts, self.segment_length)
            too_few = len(self._segments) < self.num_lanes
        if too_few:
            raise ValueError(
                f"{self.num_tokens} tokens are too few for num_lanes="
                f"{self.num_lanes} of segment_length={self.segment_length}: "
                f"needed are at least {needed} tokens; use a longer text, "
                "fewer lanes or shorter segments"
            )

    @property
    def segments_per_pass(self):
        """int R, segments in the text."""
        return len(self._segments)

    @property
    def steps_per_pass(self):
        """int ceil(R / B), steps after which every segment has been read."""
        return -(-len(self._segments) // self.num_lanes)

    def batch(self, step, first_lane=0, num_lanes=None):
        """Returns the batch of one step.

        Args:
            step: int >= 0.
            first_lane: int, the first of the lanes wanted.
            num_lanes: int b, how many; None for all from `first_lane` on.

        Returns:
            dict of `tokens` [b, T] int32, `targets` [b, T] int32 (the next
            tokens), `weights` [b, T] float32 (1 for a target, 0 for padding),
            and `reset` [b] bool, True where a document begins.

        Raises:
            ValueError: an argument is out of range.
        """
        step = _integer("step", step, 0)
        lanes = _lane_range(self.num_lanes, first_lane, num_lanes)
        return self._segments.read(*self._locate(step, lanes))

    def _locate(self, step, lanes):
        # Operators only: `step` may be an int or int64 tensors [S, 1].
        count = len(self._segments)
        first = np.array(lanes, np.int64) * count // self.num_lanes
        # Modulo first: the sum of a step far away and a segment overflows.
        return (first + step % count) % count, np.int64(count - 1)

    def dataset(
        self,
        start_step=0,
        first_lane=0,
        num_lanes=None,
        num_replicas=1,
        shards=None,
    ):
        """Returns the batches from `start_step` on, without end.

        Args:
            start_step: int >= 0, the step of the first element.
            first_lane: int, the first of the lanes wanted.
            num_lanes: int b, how many; None for all from `first_lane` on.
            num_replicas: int r, in how many parts of b / r lanes each batch
                is dealt out; see the module's docstring.
            shards: TokenShards of these tokens, or of more that begin with
                them; None = read in Python.

        Returns:
            tf.data.Dataset whose element r * s + i is rows i * b / r to
            (i + 1) * b / r of `batch(start_step + s, first_lane, num_lanes)`,
            with static shapes.

        Raises:
            ValueError: an argument is out of range, or `num_replicas` does
                not divide the lanes.
        """
        # Steps repeat after R, so any step is as good as a small one.
        start_step = _integer("start_step", start_step, 0)
        start_step %= len(self._segments)
        lanes = _lane_range(self.num_lanes, first_lane, num_lanes)
        return _dataset(self, start_step, None, lanes, num_replicas, shards)


class EvaluationLanes:
    """Lanes that score every target of a text exactly once.

    The N - 1 targets of N tokens, from the second token on, are cut into B
    contiguous runs whose sizes differ by at most one: lane b has targets
    (b * (N - 1)) // B to ((b + 1) * (N - 1)) // B. The input of each target
    is the token before it, the first of a lane included. The last segment of
    a lane and of a document is padded on the right with 0, and a lane that is
    through is all padding; padding has weight 0.

        before: tokens 10 11 12 13 14 15, num_lanes=2, segment_length=2
        after:  step   tokens          targets         weights     reset
                0      10 11 / 12 13   11 12 / 13 14   1 1 / 1 1   True  / True
                1       0  0 / 14  0    0  0 / 15  0   0 0 / 1 0   False / False

    More lanes are faster, but each starts without memory.

    Args:
        tokens: integers [N], N >= 2, token ids.
        num_lanes: int B, from 1 to N - 1.
        segment_length: int T >= 1, tokens of a segment; required.
        document_starts: as for TrainingLanes.

    Raises:
        ValueError: an argument is out of range, there is no target, or there
            are more lanes than targets.
    """

    def __init__(
        self, tokens, num_lanes=1, segment_length=None, document_starts=None
    ):
        tokens = TokenArray(tokens)
        self.num_tokens = len(tokens)
        self.num_lanes = _integer("num_lanes", num_lanes, 1)
        self.segment_length = _integer("segment_length", segment_length, 1)
        if self.num_tokens < 2:
            raise ValueError(
                f"tokens must hold at least 2 tokens, the first of which is "
                f"only input, got {self.num_tokens}"
            )
        if self.num_lanes > self.num_targets:
            raise ValueError(
                f"num_lanes must be from 1 to the {self.num_targets} targets "
                f"of {self.num_tokens} tokens, got {self.num_lanes}"
            )
        lanes = np.arange(self.num_lanes, dtype=np.int64)
        lane_starts = lanes * self.num_targets // self.num_lanes
        documents = check_starts(document_starts, self.num_tokens)
        bounds = np.union1d(lane_starts, documents)
        self._segments = Segments(tokens, bounds, self.segment_length)
        pieces = np.append(np.searchsorted(bounds, lane_starts), len(bounds))
        # The first segment of each lane, and the end of the last.
        self._edges = self._segments.first_of(pieces)

    @property
    def num_targets(self):
        """int N - 1, tokens scored: the sum of all weights."""
        return self.num_tokens - 1

    @property
    def num_steps(self):
        """int, batches until the longest lane is through."""
        return int(np.diff(self._edges).max())

    def batch(self, step, first_lane=0, num_lanes=None):
        """Returns the batch of one step.

        Args:
            step: int from 0 to `num_steps` - 1.
            first_lane: int, the first of the lanes wanted.
            num_lanes: int b, how many; None for all from `first_lane` on.

        Returns:
            dict of `tokens` [b, T] int32, `targets` [b, T] int32, `weights`
            [b, T] float32 (1 for a target to score, 0 for padding), and
            `reset` [b] bool, True where a lane or a document begins.

        Raises:
            ValueError: an argument is out of range.
        """
        step = _integer("step", step, 0, self.num_steps - 1)
        lanes = _lane_range(self.num_lanes, first_lane, num_lanes)
        return self._segments.read(*self._locate(step, lanes))

    def _locate(self, step, lanes):
        # As of TrainingLanes.
        lanes = np.array(lanes)
        return self._edges[lanes] + step, self._edges[lanes + 1] - 1

    def dataset(
        self, first_lane=0, num_lanes=None, num_replicas=1, shards=None
    ):
        """Returns all `num_steps` batches.

        Args:
            first_lane: int, the first of the lanes wanted.
            num_lanes: int b, how many; None for all from `first_lane` on.
            num_replicas: int r, in how many parts of b / r lanes each batch
                is dealt out; see the module's docstring.
            shards: TokenShards of these tokens, or of more that begin with
                them; None = read in Python.

        Returns:
            tf.data.Dataset of `num_steps` * r elements; element r * s + i is
            rows i * b / r to (i + 1) * b / r of
            `batch(s, first_lane, num_lanes)`, with static shapes.

        Raises:
            ValueError: an argument is out of range, or `num_replicas` does
                not divide the lanes.
        """
        lanes = _lane_range(self.num_lanes, first_lane, num_lanes)
        return _dataset(self, 0, self.num_steps, lanes, num_replicas, shards)


def _dataset(text, start_step, num_steps, lanes, num_replicas, shards):
    """Returns the dataset of some lanes, dealt to replicas.

    Args:
        text: TrainingLanes or EvaluationLanes.
        start_step: int, of the first batch.
        num_steps: int, batches in all; None = without end.
        lanes: range of the lanes wanted.
        num_replicas: int.
        shards: TokenShards or None.
    """
    shape = DatasetShape(
        start_step=start_step,
        num_steps=num_steps,
        num_replicas=num_replicas,
        rows=_rows_per_replica(len(lanes), num_replicas),
        segment_length=text.segment_length,
    )
    if shards is None:
        return read_in_python(
            lambda step, row, rows: text.batch(step, lanes.start + row, rows),
            shape,
        )
    if shards.num_tokens < text.num_tokens:
        raise ValueError(
            f"shards must hold the {text.num_tokens} tokens of the lanes, got "
            f"{shards.num_tokens}"
        )
    read = text._segments.reader_in_graph(shards)
    return read_in_graph(lambda step: read(*text._locate(step, lanes)), shape)


def _integer(name, value, least, most=None):
    """Returns `value` as an int after checking its type and range."""
    allowed = f">= {least}" if most is None else f"from {least} to {most}"
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or (most is not None and number > most):
        raise ValueError(f"{name} must be an integer {allowed}, got {value!r}")
    return number


def _lane_range(all_lanes, first_lane, num_lanes):
    """Returns the lanes asked for, as a range."""
    first_lane = _integer("first_lane", first_lane, 0, all_lanes - 1)
    most = all_lanes - first_lane
    if num_lanes is None:
        num_lanes = most
    num_lanes = _integer("num_lanes", num_lanes, 1, most)
    return range(first_lane, first_lane + num_lanes)


def _rows_per_replica(num_lanes, num_replicas):
    """Returns how many of the lanes each replica has."""
    num_replicas = _integer("num_replicas", num_replicas, 1)
    if num_lanes % num_replicas:
        raise ValueError(
            f"num_replicas must divide the {num_lanes} lanes, got "
            f"{num_replicas}"
        )
    return num_lanes // num_replicas
