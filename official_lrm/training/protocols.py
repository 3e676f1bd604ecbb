"""Published ways to evaluate, each as one name.

"dai2019" is that of Dai et al. (2019), Transformer-XL, in their released
evaluation of the largest models: T = 128, every query sees M_l keys
(`same_length`), distances are clamped at 1000, and the memory is 3800 on
enwik8 and text8, 1600 on WikiText-103. In their models all layers' memories
are alike, so where no layer is long every layer gets this span. Where some are
long, as in Rae & Razavi's, those get it and short ones stay as trained: only
the long memory is extended at test (section 3.2), a short one is the same "at
both train and test" (section 4.2).

"rae2020" is that of Rae & Razavi (2020), section 3.2: T = 384, the window of
training, since none is stated for the test; long memories of 6000, short ones
as trained. The 6000 was "chosen from a sweep over the validation set", which
is stated once, for both corpora; WikiText-103 has no other. Mask and clamp are
not stated and stay the model's own. Of validation characters the first
500,000 are scored ("to speed up model evaluation"), of anything else all.

Neither states the lanes, nor what a model of word pieces should remember.
"""

import dataclasses
import math
import types
from collections.abc import Mapping

from official_lrm.memory.spans import MemorySpans


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A published way to evaluate.

    Attributes:
        name: its name.
        segment_length: T.
        memory: unit of the tokens -> test-time span of the long layers.
        without_long: whether every layer gets that span where none is long.
        same_length: None = the model's own.
        clamp_length: None = the model's own.
        validation_targets: unit -> targets of the validation split to score,
            the first; all where there is none.
    """

    name: str
    segment_length: int
    memory: Mapping
    without_long: bool
    same_length: bool | None = None
    clamp_length: int | None = None
    validation_targets: Mapping = dataclasses.field(default_factory=dict)

    def spans(self, spans, unit) -> MemorySpans:
        """The spans of a model at test time.

        Args:
            spans: MemorySpans of training.
            unit: "character", "word" or "piece".

        Raises:
            ValueError: if the protocol has none for this unit.
        """
        if unit not in self.memory:
            raise ValueError(
                f"protocol {self.name} states a memory for "
                f"{' and '.join(f'{name}s' for name in self.memory)} only; "
                f"got a model of {unit}s: give --spans, --num_long or "
                "--long_memory too."
            )
        length = self.memory[unit]
        if self.without_long and not any(spans.is_long):
            return MemorySpans([length] * len(spans))
        return spans.with_long(length)

    def overrides(self) -> dict:
        """What of `same_length` and `clamp_length` the protocol states."""
        stated = {
            "same_length": self.same_length,
            "clamp_length": self.clamp_length,
        }
        return {
            key: value for key, value in stated.items() if value is not None
        }

    def max_tokens(self, split, unit) -> int | None:
        """Targets of a split to score at most; None = all."""
        if split != "validation":
            return None
        return self.validation_targets.get(unit)

    def describe(self, model, own, result, long_memory=None) -> str:
        """The protocol's name, and where a figure does not follow it.

        Args:
            model: the model that was scored.
            own: the model as it was trained.
            result: its EvaluationResult.
            long_memory: what the long spans were set to; None = they were
                not.

        Returns:
            "dai2019", or like "dai2019 but T=64, long_memory=768".
        """
        text = result.text
        available = text.split_tokens
        limit = self.max_tokens(text.split, text.unit) or math.inf
        stated = self.overrides()
        changed = []
        if result.segment_length != self.segment_length:
            changed.append(f"T={result.segment_length}")
        for name in ("same_length", "clamp_length"):
            value = getattr(model, name)
            if value != stated.get(name, getattr(own, name)):
                changed.append(f"{name}={value}")
        if text.unit not in self.memory or (
            model.spans.lengths != self.spans(own.spans, text.unit).lengths
        ):
            changed.append(
                "spans" if long_memory is None else f"long_memory={long_memory}"
            )
        if result.tokens != min(limit, available):
            changed.append(f"max_tokens={result.tokens}")
        return self.name + (f" but {', '.join(changed)}" if changed else "")


PROTOCOLS = types.MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            Protocol(
                name="dai2019",
                segment_length=128,
                memory={"character": 3800, "word": 1600},
                without_long=True,
                same_length=True,
                clamp_length=1000,
            ),
            Protocol(
                name="rae2020",
                segment_length=384,
                memory={"character": 6000, "word": 6000},
                without_long=False,
                validation_targets={"character": 500_000},
            ),
        )
    }
)


def find_protocol(name) -> Protocol:
    """Finds a protocol by its name.

    Args:
        name: one of PROTOCOLS.

    Raises:
        ValueError: if there is none of this name.
    """
    if name not in PROTOCOLS:
        raise ValueError(
            f"protocol must be one of {', '.join(PROTOCOLS)}; got {name!r}."
        )
    return PROTOCOLS[name]
