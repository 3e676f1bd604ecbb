"""A text cut into segments that never go across the start of a document."""

import numpy as np


class Segments:
    """Random access to the segments of a text.

    The inputs of N tokens are all but the last, the targets all but the
    first. The inputs are cut at `bounds`, and each piece into segments of T,
    the last one padded on the right with 0 and weight 0. The target of the
    last token of a piece is the first token of the next one, so that every
    target stands in exactly one segment.

        before: tokens 10 11 12 13 14 15, bounds [0, 3], segment_length=2
        after:  segment  tokens  targets  weights  first
                0        10 11   11 12    1 1      True
                1        12  0   13  0    1 0      False
                2        13 14   14 15    1 1      True

    Args:
        tokens: TokenArray of N >= 2 tokens.
        bounds: int64 [P], the first input of each piece, in ascending order,
            from 0 to N - 2.
        segment_length: int T.
    """

    def __init__(self, tokens, bounds, segment_length):
        self._tokens = tokens
        self._length = segment_length
        self._starts = np.asarray(bounds, np.int64)
        self._ends = np.append(self._starts[1:], len(tokens) - 1)
        counts = -(-(self._ends - self._starts) // segment_length)
        # Segments before each piece, and all of them.
        self._before = np.concatenate([[0], np.cumsum(counts)])

    def __len__(self):
        return int(self._before[-1])

    def first_of(self, pieces):
        """Returns the first segment of each piece.

        Args:
            pieces: integers, from 0 to P (which gives the number of segments).
        """
        return self._before[pieces]

    def read(self, indices, last=None):
        """Returns the segments at `indices`.

        Args:
            indices: int64 [B], from 0 on.
            last: int64, broadcast to [B], the last segment wanted in a row: a
                row that asks for a later one is all padding and not the first
                of anything. None = the last of all.

        Returns:
            dict of `tokens`, `targets` [B, T] int32, `weights` [B, T] float32
            (1 for a target, 0 for padding), and `reset` [B] bool, True where
            the segment is the first of a piece.
        """
        last = len(self) - 1 if last is None else last
        wanted = indices <= last
        indices = np.minimum(indices, last)
        piece = np.searchsorted(self._before, indices, side="right") - 1
        segment = indices - self._before[piece]
        starts = self._starts[piece] + segment * self._length
        ends = self._ends[piece][:, None]
        # Padding reads the target at the end, which the mask then removes.
        positions = starts[:, None] + np.arange(self._length + 1)
        positions = np.minimum(positions, ends)
        valid = (positions[:, :-1] < ends) & wanted[:, None]
        tokens = self._tokens.take(positions)
        return {
            "tokens": tokens[:, :-1] * valid,
            "targets": tokens[:, 1:] * valid,
            "weights": valid.astype(np.float32),
            "reset": (segment == 0) & wanted,
        }

    def reader_in_graph(self, shards):
        """Returns `read` in TensorFlow operations.

        Args:
            shards: TokenShards of the same tokens, or of more that begin with
                them.

        Returns:
            Function of `indices` and `last`, int64 tensors that are broadcast
            to one shape, that returns what `read` does of them, flattened to
            [B]. It reads the shards that hold tokens of these segments and no
            others. Sent to another process, the graph holds the bounds of the
            pieces, not the tokens.
        """
        import tensorflow as tf

        # Outside of a graph that is being made, so that it holds no copies;
        # and where datasets run.
        with tf.init_scope(), tf.device("CPU:0"):
            before, starts, ends = map(
                tf.constant, (self._before, self._starts, self._ends)
            )

        def read(indices, last):
            wanted = tf.reshape(indices <= last, [-1])
            indices = tf.reshape(tf.minimum(indices, last), [-1])
            piece = tf.searchsorted(before, indices, "right", tf.int64) - 1
            segment = indices - tf.gather(before, piece)
            first = tf.gather(starts, piece) + segment * self._length
            end = tf.gather(ends, piece)[:, None]
            positions = first[:, None] + tf.range(
                self._length + 1, dtype=end.dtype
            )
            positions = tf.minimum(positions, end)
            valid = (positions[:, :-1] < end) & wanted[:, None]
            tokens, mask = shards.take(positions), tf.cast(valid, tf.int32)
            return {
                "tokens": tokens[:, :-1] * mask,
                "targets": tokens[:, 1:] * mask,
                "weights": tf.cast(valid, tf.float32),
                "reset": (segment == 0) & wanted,
            }

        return read


def check_starts(document_starts, num_tokens):
    """Returns the starts of documents that have an input, as int64 [D].

    Args:
        document_starts: integers in ascending order, the first of them 0;
            None = one document.
        num_tokens: int N.

    Raises:
        ValueError: if they are not that.
    """
    if document_starts is None:
        return np.zeros(1, np.int64)
    starts = np.asarray(document_starts)
    if (
        starts.ndim != 1
        or not np.issubdtype(starts.dtype, np.integer)
        or not starts.size
        or starts[0] != 0
        or np.any(np.diff(starts) <= 0)
        or starts[-1] >= num_tokens
    ):
        raise ValueError(
            "document_starts must be integers in ascending order from 0 to "
            f"{num_tokens - 1}, the first of them 0, got {document_starts!r}"
        )
    # The last token is a target only.
    return starts[starts < num_tokens - 1].astype(np.int64)
