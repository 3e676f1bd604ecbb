"""Contiguous lanes: a text as batches whose rows go on from step to step.

A model that carries memory reads row b of one batch after row b of the batch
before. So a text is cut into B lanes, each a contiguous run of it, and step s
holds the s-th segment of T tokens of every lane.

Both classes are pure functions of the step: any batch costs the same, so a
resumed run asks for the step it needs, and nothing has to be read before it.

Both `dataset` methods take `num_replicas`. A distributed iterator
(`strategy.distribute_datasets_from_function`) deals out the elements of a
worker's one dataset in turn, the first to replica 0, the next to replica 1.
Whole batches would thus give a replica every other *step*. With
`num_replicas=2` the elements are the first half of the rows of step 0, the
second half of step 0, the first half of step 1: each replica keeps its lanes.
"""

import operator

import numpy as np

from official_lrm.data.token_array import TokenArray


class TrainingLanes:
    """Lanes that go round a text for ever.

    The N tokens hold R = (N - 1) // T whole segments with their targets; the
    rest, fewer than T tokens at the very end, is not trained on. Lane b
    starts at segment (b * R) // B and reads segment
    ((b * R) // B + s) mod R at step s. When it has come to the end of the
    text it goes on at the beginning; there the text is not contiguous and
    `reset` says so.

        before: tokens 10 11 12 13 14 15 16 17, num_lanes=2, segment_length=2
                (R = 3: segments 10 11 | 12 13 | 14 15, starts 0 and 1)
        after:  step   tokens           targets          reset
                0      10 11 / 12 13    11 12 / 13 14    True  / False
                1      12 13 / 14 15    13 14 / 15 16    False / False
                2      14 15 / 10 11    15 16 / 11 12    False / True
                3      10 11 / 12 13    11 12 / 13 14    True  / False

    Args:
        tokens: integers [N], token ids.
        num_lanes: int B >= 1, rows of a batch over all replicas and workers.
        segment_length: int T >= 1, tokens of a segment.

    Raises:
        ValueError: an argument is out of range, or the text has fewer
            segments than there are lanes.
    """

    def __init__(self, tokens, num_lanes, segment_length):
        self._tokens = TokenArray(tokens)
        self.num_lanes = _integer("num_lanes", num_lanes, 1)
        self.segment_length = _integer("segment_length", segment_length, 1)
        self._segments = max(len(self._tokens) - 1, 0) // self.segment_length
        if self._segments < self.num_lanes:
            raise ValueError(
                f"{len(self._tokens)} tokens are too few for num_lanes="
                f"{self.num_lanes} of segment_length={self.segment_length}: "
                f"needed are at least "
                f"{self.num_lanes * self.segment_length + 1} tokens; use a "
                f"longer text, fewer lanes or shorter segments"
            )

    @property
    def num_tokens(self):
        """int N, tokens in the text."""
        return len(self._tokens)

    @property
    def segments_per_pass(self):
        """int R, whole segments in the text."""
        return self._segments

    @property
    def steps_per_pass(self):
        """int ceil(R / B), steps after which every segment has been read."""
        return -(-self._segments // self.num_lanes)

    def batch(self, step, first_lane=0, num_lanes=None):
        """Returns the batch of one step.

        Args:
            step: int >= 0.
            first_lane: int, the first of the lanes wanted.
            num_lanes: int b, how many; None for all from `first_lane` on.

        Returns:
            dict of `tokens` [b, T] int32, `targets` [b, T] int32 (the next
            tokens), and `reset` [b] bool, True where the lane begins at the
            beginning of the text.

        Raises:
            ValueError: an argument is out of range.
        """
        step = _integer("step", step, 0)
        lanes = _lane_range(self.num_lanes, first_lane, num_lanes)
        segments = (self._first_segments(lanes) + step) % self._segments
        window = np.arange(self.segment_length + 1)
        tokens = self._tokens.take(
            segments[:, None] * self.segment_length + window
        )
        return {
            "tokens": tokens[:, :-1],
            "targets": tokens[:, 1:],
            "reset": segments == 0,
        }

    def dataset(
        self, start_step=0, first_lane=0, num_lanes=None, num_replicas=1
    ):
        """Returns the batches from `start_step` on, without end.

        Args:
            start_step: int >= 0, the step of the first element.
            first_lane: int, the first of the lanes wanted.
            num_lanes: int b, how many; None for all from `first_lane` on.
            num_replicas: int r, in how many parts of b / r lanes each batch
                is dealt out; see the module's docstring.

        Returns:
            tf.data.Dataset whose element r * s + i is rows i * b / r to
            (i + 1) * b / r of `batch(start_step + s, first_lane, num_lanes)`,
            with static shapes.

        Raises:
            ValueError: an argument is out of range, or `num_replicas` does
                not divide the lanes.
        """
        import tensorflow as tf

        # Steps repeat after R, so any step is as good as a small one.
        start_step = _integer("start_step", start_step, 0) % self._segments
        lanes = _lane_range(self.num_lanes, first_lane, num_lanes)
        rows = _rows_per_replica(len(lanes), num_replicas)
        first_segments = self._first_segments(lanes)
        corpus = self._tokens.tensor()

        def element(index):
            first_row = index % num_replicas * rows
            segments = tf.slice(first_segments, [first_row], [rows])
            segments = (segments + index // num_replicas) % self._segments
            window = tf.range(self.segment_length + 1, dtype=tf.int64)
            tokens = tf.gather(
                corpus, segments[:, None] * self.segment_length + window
            )
            tokens = tf.cast(tokens, tf.int32)
            return {
                "tokens": tokens[:, :-1],
                "targets": tokens[:, 1:],
                "reset": tf.equal(segments, 0),
            }

        indices = tf.data.Dataset.counter(start_step * num_replicas)
        return indices.map(element).prefetch(tf.data.AUTOTUNE)

    def _first_segments(self, lanes):
        """Returns the segment of step 0 of each lane, int64 [b]."""
        return np.array(lanes, np.int64) * self._segments // self.num_lanes


class EvaluationLanes:
    """Lanes that score every target of a text exactly once.

    The N - 1 targets of N tokens, from the second token on, are cut into B
    contiguous runs whose sizes differ by at most one: lane b has targets
    (b * (N - 1)) // B to ((b + 1) * (N - 1)) // B. The input of each target
    is the token before it, the first of a lane included. Lanes are padded on
    the right with 0 to whole segments; the padding has weight 0.

        before: tokens 10 11 12 13 14 15, num_lanes=2, segment_length=2
        after:  step   tokens          targets         weights     reset
                0      10 11 / 12 13   11 12 / 13 14   1 1 / 1 1   True
                1       0  0 / 14  0    0  0 / 15  0   0 0 / 1 0   False

    More lanes are faster, but each starts without memory.

    Args:
        tokens: integers [N], N >= 2, token ids.
        num_lanes: int B, from 1 to N - 1.
        segment_length: int T >= 1, tokens of a segment; required.

    Raises:
        ValueError: an argument is out of range, there is no target, or there
            are more lanes than targets.
    """

    def __init__(self, tokens, num_lanes=1, segment_length=None):
        self._tokens = TokenArray(tokens)
        self.num_lanes = _integer("num_lanes", num_lanes, 1)
        self.segment_length = _integer("segment_length", segment_length, 1)
        if len(self._tokens) < 2:
            raise ValueError(
                f"tokens must hold at least 2 tokens, the first of which is "
                f"only input, got {len(self._tokens)}"
            )
        if self.num_lanes > self.num_targets:
            raise ValueError(
                f"num_lanes must be from 1 to the {self.num_targets} targets "
                f"of {len(self._tokens)} tokens, got {self.num_lanes}"
            )

    @property
    def num_tokens(self):
        """int N, tokens in the text."""
        return len(self._tokens)

    @property
    def num_targets(self):
        """int N - 1, tokens scored: the sum of all weights."""
        return len(self._tokens) - 1

    @property
    def num_steps(self):
        """int, batches until the longest lane is through."""
        longest = -(-self.num_targets // self.num_lanes)
        return -(-longest // self.segment_length)

    def batch(self, step, first_lane=0, num_lanes=None):
        """Returns the batch of one step.

        Args:
            step: int from 0 to `num_steps` - 1.
            first_lane: int, the first of the lanes wanted.
            num_lanes: int b, how many; None for all from `first_lane` on.

        Returns:
            dict of `tokens` [b, T] int32, `targets` [b, T] int32, `weights`
            [b, T] float32 (1 for a target to score, 0 for padding), and
            `reset` [b] bool (True at step 0).

        Raises:
            ValueError: an argument is out of range.
        """
        step = _integer("step", step, 0, self.num_steps - 1)
        lanes = _lane_range(self.num_lanes, first_lane, num_lanes)
        starts, ends = self._bounds(lanes)
        segment = np.arange(self.segment_length) + step * self.segment_length
        positions = starts[:, None] + segment
        valid = positions < ends[:, None]
        # Padding reads some token that exists, which the mask then removes.
        positions = np.minimum(positions, self.num_targets - 1)
        return {
            "tokens": self._tokens.take(positions) * valid,
            "targets": self._tokens.take(positions + 1) * valid,
            "weights": valid.astype(np.float32),
            "reset": np.full(len(lanes), step == 0),
        }

    def dataset(self, first_lane=0, num_lanes=None, num_replicas=1):
        """Returns all `num_steps` batches.

        Args:
            first_lane: int, the first of the lanes wanted.
            num_lanes: int b, how many; None for all from `first_lane` on.
            num_replicas: int r, in how many parts of b / r lanes each batch
                is dealt out; see the module's docstring.

        Returns:
            tf.data.Dataset of `num_steps` * r elements; element r * s + i is
            rows i * b / r to (i + 1) * b / r of
            `batch(s, first_lane, num_lanes)`, with static shapes.

        Raises:
            ValueError: an argument is out of range, or `num_replicas` does
                not divide the lanes.
        """
        import tensorflow as tf

        lanes = _lane_range(self.num_lanes, first_lane, num_lanes)
        rows = _rows_per_replica(len(lanes), num_replicas)
        starts, ends = self._bounds(lanes)
        corpus = self._tokens.tensor()

        def element(index):
            first_row = index % num_replicas * rows
            step = index // num_replicas
            segment = tf.range(self.segment_length, dtype=tf.int64)
            positions = tf.slice(starts, [first_row], [rows])[:, None] + (
                segment + step * self.segment_length
            )
            valid = positions < tf.slice(ends, [first_row], [rows])[:, None]
            positions = tf.minimum(positions, self.num_targets - 1)
            mask = tf.cast(valid, tf.int32)
            tokens = tf.cast(tf.gather(corpus, positions), tf.int32)
            targets = tf.cast(tf.gather(corpus, positions + 1), tf.int32)
            return {
                "tokens": tokens * mask,
                "targets": targets * mask,
                "weights": tf.cast(valid, tf.float32),
                "reset": tf.fill([rows], tf.equal(step, 0)),
            }

        indices = tf.data.Dataset.range(self.num_steps * num_replicas)
        return indices.map(element).prefetch(tf.data.AUTOTUNE)

    def _bounds(self, lanes):
        """Returns the first target of each lane and of the next, int64 [b]."""
        lanes = np.array(lanes, np.int64)
        starts = lanes * self.num_targets // self.num_lanes
        ends = (lanes + 1) * self.num_targets // self.num_lanes
        return starts, ends


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
