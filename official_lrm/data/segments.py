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

    def read(self, indices, wanted=None):
        """Returns the segments at `indices`.

        Args:
            indices: int64 [B], from 0 to `len(self)` - 1.
            wanted: bool [B]; where it is False the row is all padding and not
                the first of anything. None = all.

        Returns:
            dict of `tokens`, `targets` [B, T] int32, `weights` [B, T] float32
            (1 for a target, 0 for padding), and `reset` [B] bool, True where
            the segment is the first of a piece.
        """
        if wanted is None:
            wanted = np.ones(len(indices), bool)
        piece = np.searchsorted(self._before, indices, side="right") - 1
        segment = indices - self._before[piece]
        starts = self._starts[piece] + segment * self._length
        positions = starts[:, None] + np.arange(self._length)
        valid = positions < np.where(wanted, self._ends[piece], 0)[:, None]
        # Padding reads some token that exists, which the mask then removes.
        positions = np.minimum(positions, len(self._tokens) - 2)
        return {
            "tokens": self._tokens.take(positions) * valid,
            "targets": self._tokens.take(positions + 1) * valid,
            "weights": valid.astype(np.float32),
            "reset": (segment == 0) & wanted,
        }


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
