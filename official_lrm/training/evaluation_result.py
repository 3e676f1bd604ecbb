"""What a text costs under a model, in all units, and how it was measured."""

import dataclasses
import math

from official_lrm.memory.spans import MemorySpans
from official_lrm.tasks.position_buckets import bucket_bounds
from official_lrm.training.scored_text import ScoredText


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
        is_long: whether each layer's memory is a long-range one.
        clamp_length: distances beyond it counted as it; None = no clamp.
        attend_to_empty: whether slots never written were attended to.
        dtype: what layers computed with.
        memory_dtype: what memories were kept in; None = the compute dtype.
        position_nats: `nats` by the position of the target's input since the
            lane or document began, in the buckets of
            tasks/position_buckets.py, up to the last that holds a target.
        position_tokens: `tokens` likewise.
        text: what was scored.
        protocol_name: the published protocol that was followed, and where
            not; "" = none.
    """

    nats: float
    tokens: int
    segment_length: int
    lanes: int
    spans: tuple
    same_length: bool
    seconds: float
    is_long: tuple = ()
    clamp_length: int | None = None
    attend_to_empty: bool = False
    dtype: str = "float32"
    memory_dtype: str | None = None
    position_nats: tuple = ()
    position_tokens: tuple = ()
    text: ScoredText = ScoredText()
    protocol_name: str = ""

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
        return _exp(self.nats_per_token)

    @property
    def bits_per_byte(self) -> float | None:
        """nats / ln 2 / bytes of the targets' text.

        None where the bytes of just these targets were not counted.
        """
        size = self._counted(self.text.num_bytes)
        return self.nats / math.log(2) / size if size else None

    @property
    def word_perplexity(self) -> float | None:
        """exp(nats / words), or 2 ** (bpc * characters / words).

        See ScoredText.measure for what a word is; None where the words of
        just these targets were not counted.
        """
        size = self._counted(self.text.num_words)
        return _exp(self.nats / size) if size else None

    @property
    def is_subset(self) -> bool:
        """Whether the split has more targets than were scored."""
        return self.tokens < (self.text.split_tokens or 0)

    @property
    def figure(self) -> str:
        """The figure of the unit: bits per character, else perplexity."""
        if self.text.unit == "character":
            return f"{self.bits_per_token:.4f} bpc"
        return f"{self.perplexity:.3f} perplexity"

    @property
    def positions(self) -> list[dict]:
        """Loss by position.

        Returns:
            A dict for each bucket with a target: `first` and `last` position,
            `tokens`, `nats`, `nats_per_token`, `perplexity`.
        """
        rows = []
        both = zip(self.position_nats, self.position_tokens, strict=True)
        for bucket, (nats, tokens) in enumerate(both):
            if tokens:
                first, last = bucket_bounds(bucket)
                rows.append(
                    {
                        "first": first,
                        "last": last,
                        "tokens": tokens,
                        "nats": nats,
                        "nats_per_token": nats / tokens,
                        "perplexity": _exp(nats / tokens),
                    }
                )
        return rows

    @property
    def protocol(self) -> str:
        """How the figure came about, in one line."""
        clamp = self.clamp_length
        empty = "attended to" if self.attend_to_empty else "masked"
        parts = [
            f"T={self.segment_length}",
            f"{self.lanes} lane(s)",
            self._targets(),
            "memory cold at the start of each lane and document",
            f"{'same-length' if self.same_length else 'causal'} mask",
            "no clamp" if clamp is None else f"clamp {clamp}",
            f"empty slots {empty}",
            repr(MemorySpans(self.spans)),
        ]
        if self.dtype != "float32":
            parts.append(f"computed in {self.dtype}")
        if self.memory_dtype:
            parts.append(f"memories kept in {self.memory_dtype}")
        name = f"{self.protocol_name}; " if self.protocol_name else ""
        return name + ", ".join(parts)

    def _targets(self):
        text = self.text
        split = f"the {text.split} split" if text.split else "the text"
        words = f"{self.tokens:,} targets"
        if self.is_subset:
            words += f" (a subset of the {text.split_tokens:,} of {split})"
        elif text.split_tokens is not None:
            words += f" (all of {split})"
        if text.documents is not None:
            words += f" in {text.documents:,} document(s)"
        return words

    def _counted(self, size):
        return size if self.tokens == self.text.num_tokens else None


def _exp(value):
    """exp that does not overflow."""
    return math.exp(min(value, 700.0))
