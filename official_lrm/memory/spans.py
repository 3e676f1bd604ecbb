"""Memory lengths of a Transformer-XL, one per layer.

Standard library only, so that configs, tools and clients can reason about
spans without loading a framework.
"""

import operator
from collections.abc import Iterator, Mapping, Sequence, Set

PLACEMENTS = ("interleaved", "first", "last", "middle")

_DTYPE_BYTES = {
    "float64": 8,
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "int8": 1,
}
# int8 has a float32 scale for each position.
_SCALE_BYTES = {"int8": 4}


class MemorySpans:
    """The memory length of every layer of a Transformer-XL.

    An immutable tuple of L integers. Layer l remembers its own inputs at the
    last `lengths[l]` positions; 0 means that the layer has no memory. Model
    parameters never depend on spans.

    Each layer is either *long* (long-range memory, LRM) or short. Which ones
    are long decides what `with_long` changes, and it is kept through
    serialization.

    ```python
    spans = MemorySpans.arrange(num_layers=6, num_long=2, long=9, short=1)
    spans.lengths         # (1, 1, 9, 1, 1, 9)
    spans.is_long         # (False, False, True, False, False, True)
    spans.with_long(20)   # MemorySpans([1, 1, 20, 1, 1, 20])
    ```

    Source: Rae & Razavi (2020), section 3.1 and figure 1.

    Args:
        lengths: one non-negative integer per layer, the first layer first.
        is_long: one bool per layer. By default the layers whose length is the
            maximum are long, and none are if all lengths are equal.

    Raises:
        ValueError: for an empty tuple, a negative or non-integer length, or an
            `is_long` of another length.
    """

    __slots__ = ("_is_long", "_lengths")

    def __init__(
        self, lengths: Sequence[int], is_long: Sequence[bool] | None = None
    ):
        if isinstance(lengths, MemorySpans):
            is_long = lengths.is_long if is_long is None else is_long
            lengths = lengths.lengths
        # A set has no order and a mapping's keys are no lengths.
        if isinstance(lengths, (str, bytes, Set, Mapping)) or not hasattr(
            lengths, "__iter__"
        ):
            raise ValueError(
                "lengths must be a sequence of integers, one per layer; got "
                f"{lengths!r}."
            )
        lengths = tuple(_length("lengths", value) for value in lengths)
        if not lengths:
            raise ValueError(
                "lengths must name at least one layer; got an empty sequence."
            )
        if is_long is None:
            longest = max(lengths)
            is_long = (
                (False,) * len(lengths)
                if min(lengths) == longest
                else tuple(length == longest for length in lengths)
            )
        else:
            if not hasattr(is_long, "__iter__"):
                raise ValueError(
                    f"is_long must have one bool for each layer; got "
                    f"{is_long!r}."
                )
            is_long = tuple(is_long)
            if len(is_long) != len(lengths):
                raise ValueError(
                    f"is_long must have one bool for each of the "
                    f"{len(lengths)} layers; got {len(is_long)}."
                )
            if not all(value in (True, False) for value in is_long):
                raise ValueError(
                    f"is_long must hold bools only; got {is_long!r}."
                )
            is_long = tuple(bool(value) for value in is_long)
        object.__setattr__(self, "_lengths", lengths)
        object.__setattr__(self, "_is_long", is_long)

    def __setattr__(self, name, value):
        raise AttributeError(
            f"MemorySpans is immutable; cannot set {name}. Make a new one."
        )

    def __delattr__(self, name):
        raise AttributeError(f"MemorySpans is immutable; cannot delete {name}.")

    @classmethod
    def arrange(
        cls,
        num_layers: int,
        num_long: int,
        placement: str = "interleaved",
        long: int = 2304,
        short: int = 128,
    ) -> "MemorySpans":
        """Places `num_long` long-range memories among `num_layers` layers.

        Interleaved, the i-th of k long memories sits in layer
        `((i + 1) * L) // k - 1`: equal spacing, the last layer always long.

        Args:
            num_layers: L, at least 1.
            num_long: k, from 0 to L.
            placement: "interleaved", "first", "last" or "middle" (k layers
                from index `(L - k) // 2`).
            long: span of the long layers, in positions.
            short: span of all others, in positions.

        Returns:
            The spans, with `is_long` true for exactly `num_long` layers.

        Raises:
            ValueError: naming the argument, its value and what is allowed.
        """
        num_layers = _size("num_layers", num_layers)
        num_long = _integer("num_long", num_long)
        if not 0 <= num_long <= num_layers:
            raise ValueError(
                f"num_long must be from 0 to num_layers={num_layers}; got "
                f"{num_long}."
            )
        if placement not in PLACEMENTS:
            raise ValueError(
                f"placement must be one of {', '.join(PLACEMENTS)}; got "
                f"{placement!r}."
            )
        if placement == "interleaved":
            chosen = {
                ((i + 1) * num_layers) // num_long - 1 for i in range(num_long)
            }
        else:
            start = {
                "first": 0,
                "middle": (num_layers - num_long) // 2,
                "last": num_layers - num_long,
            }[placement]
            chosen = set(range(start, start + num_long))
        long, short = _length("long", long), _length("short", short)
        is_long = tuple(layer in chosen for layer in range(num_layers))
        return cls([long if value else short for value in is_long], is_long)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Memory length of each layer, in positions."""
        return self._lengths

    @property
    def is_long(self) -> tuple[bool, ...]:
        """Whether each layer holds a long-range memory."""
        return self._is_long

    def with_long(self, long: int) -> "MemorySpans":
        """Returns spans whose long layers remember `long` positions.

        The paper trains with 2304 and tests with 6000 (section 3.2). Short
        spans stay as they are.

        Args:
            long: the new span of every long layer, in positions.

        Raises:
            ValueError: if `long` is not a non-negative integer.
        """
        long = _length("long", long)
        lengths = [
            long if is_long else length
            for length, is_long in zip(
                self._lengths, self._is_long, strict=True
            )
        ]
        return MemorySpans(lengths, self._is_long)

    def state_bytes(
        self, hidden_size: int, batch_size: int = 1, dtype: str = "float32"
    ) -> int:
        """Bytes of the memories, `sum(M_l) * D * B * bytes(dtype)`.

        The `position` counter (4 bytes a lane) is not counted. In int8 there
        are 4 more for the scale of each position.

        Args:
            hidden_size: D.
            batch_size: B, number of lanes.
            dtype: "float64", "float32", "bfloat16", "float16" or "int8".

        Raises:
            ValueError: for a size below 1 or an unknown dtype.
        """
        if dtype not in _DTYPE_BYTES:
            raise ValueError(
                f"dtype must be one of {', '.join(_DTYPE_BYTES)}; got "
                f"{dtype!r}."
            )
        # NumPy's integers would overflow: only Python's go into the product.
        hidden_size = _size("hidden_size", hidden_size)
        batch_size = _size("batch_size", batch_size)
        slot = hidden_size * _DTYPE_BYTES[dtype] + _SCALE_BYTES.get(dtype, 0)
        return sum(self._lengths) * slot * batch_size

    def diagram(self, width: int = 48) -> str:
        """Draws the spans as text, as figure 1 of the paper does.

        The last layer is on top. Each bar ends at the present on its right
        and reaches back to the left; `#` marks a long-range memory, `=` a
        short one and `.` a layer without memory.

        ```
        layer 2  ############  6000 long
        layer 1             =   128
        layer 0             .     0
        ```

        Args:
            width: columns of the longest bar.

        Raises:
            ValueError: if `width` is below 1.
        """
        width = _size("width", width)
        longest = max(self._lengths)
        digits = len(str(longest))
        name_width = len(str(len(self) - 1))
        rows = []
        for layer in reversed(range(len(self))):
            length, is_long = self._lengths[layer], self._is_long[layer]
            mark = "#" if is_long else "="
            # At least one mark for any memory, however short beside the
            # longest.
            bar = (
                mark * max(1, round(width * length / longest))
                if length
                else "."
            )
            row = f"layer {layer:>{name_width}}  {bar:>{width}}  "
            row += f"{length:>{digits}}" + (" long" if is_long else "")
            rows.append(row)
        return "\n".join(rows)

    def get_config(self) -> dict:
        """Returns a JSON-serializable dict that `from_config` takes."""
        return {
            "lengths": list(self._lengths),
            "is_long": list(self._is_long),
        }

    @classmethod
    def from_config(cls, config: dict) -> "MemorySpans":
        """Inverse of `get_config`."""
        return cls(config["lengths"], config.get("is_long"))

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(self._lengths)

    def __getitem__(self, layer):
        return self._lengths[layer]

    def __eq__(self, other) -> bool:
        if not isinstance(other, MemorySpans):
            return NotImplemented
        return (self._lengths, self._is_long) == (
            other._lengths,
            other._is_long,
        )

    def __hash__(self) -> int:
        return hash((self._lengths, self._is_long))

    def __repr__(self) -> str:
        lengths = list(self._lengths)
        if MemorySpans(lengths)._is_long == self._is_long:
            return f"MemorySpans({lengths})"
        return f"MemorySpans({lengths}, is_long={list(self._is_long)})"

    def __reduce__(self):
        return (MemorySpans, (self._lengths, self._is_long))


def _integer(name: str, value) -> int:
    # bool is an int to Python, but a span of True is a mistake.
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be an integer; got {value!r}.") from None


def _size(name: str, value) -> int:
    value = _integer(name, value)
    if value < 1:
        raise ValueError(f"{name} must be at least 1; got {value}.")
    return value


def _length(name: str, value) -> int:
    value = _integer(name, value)
    if value < 0:
        raise ValueError(
            f"{name} must not be negative (0 = no memory); got {value}."
        )
    return value
