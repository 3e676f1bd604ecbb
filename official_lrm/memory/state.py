"""The state that memory spans imply: names, specs, validity and update.

Memories are a flat dict: `"memory_00"`, `"memory_01"`, … [B, M_l, D], only for
layers whose span is not 0 (or what another `MemoryFormat` says), and
`"position"` [B] int32, the number of tokens that each lane has seen since it
was reset. Slots are stored oldest position first. Position 0 is all that it
takes to reset a lane: slots that the position says were never written are
never read.
"""

import collections

import keras
from keras import ops

from official_lrm.memory.memory_format import (
    MemoryFormat,
    memory_name,
    split_name,
)
from official_lrm.memory.spans import MemorySpans

POSITION = "position"

_INT32_MAX = 2**31 - 1

MemorySpec = collections.namedtuple("MemorySpec", ["shape", "dtype"])


def memory_specs(
    spans: MemorySpans,
    memory_format: MemoryFormat,
    batch_size: int | None = None,
) -> dict[str, MemorySpec]:
    """Shapes and dtypes of the memories of `spans`, by name.

    Args:
        spans: memory length of each layer.
        memory_format: what is kept of a position.
        batch_size: B, or None where it is not known.

    Returns:
        `{"memory_00": ((B, M_0, D), dtype), ..., "position": ((B,), "int32")}`
        without the layers whose span is 0.
    """
    specs = {
        name: MemorySpec((batch_size, span, *shape), dtype)
        for layer, span in enumerate(spans)
        if span
        for name, (shape, dtype) in memory_format.slots(layer).items()
    }
    specs[POSITION] = MemorySpec((batch_size,), "int32")
    return specs


def initial_memories(
    spans: MemorySpans, memory_format: MemoryFormat, batch_size: int
) -> dict:
    """Memories of lanes that have seen nothing: zeros, position 0.

    Args:
        spans: memory length of each layer.
        memory_format: what is kept of a position.
        batch_size: B, an integer or a scalar integer tensor.

    Returns:
        A dict of tensors with the names, shapes and dtypes of `memory_specs`.
    """
    specs = memory_specs(spans, memory_format, batch_size)
    return {
        name: ops.zeros(spec.shape, dtype=spec.dtype)
        for name, spec in specs.items()
    }


def check_memories(
    memories: dict,
    spans: MemorySpans,
    memory_format: MemoryFormat,
    batch_size: int | None = None,
):
    """Refuses memories that do not belong to `spans`.

    Args:
        memories: a dict of tensors.
        spans: the spans that they should have.
        memory_format: what they should keep of a position.
        batch_size: B, or None where it is not known.

    Raises:
        ValueError: naming the missing, extra or misshapen memory.
    """
    specs = memory_specs(spans, memory_format, batch_size)
    if not isinstance(memories, dict):
        raise ValueError(
            f"memories must be a dict of tensors with the names "
            f"{', '.join(specs)}; got {type(memories).__name__}."
        )
    if missing := [name for name in specs if name not in memories]:
        raise ValueError(
            f"memories lack {', '.join(missing)}; {spans!r} needs "
            f"{', '.join(specs)}."
        )
    if extra := [name for name in memories if name not in specs]:
        raise ValueError(
            f"memories hold {', '.join(map(str, extra))}, but {spans!r} takes "
            f"only {', '.join(specs)}."
        )
    for name, spec in specs.items():
        shape = tuple(memories[name].shape)
        if len(shape) != len(spec.shape) or any(
            None not in (got, wanted) and got != wanted
            for got, wanted in zip(shape, spec.shape, strict=True)
        ):
            raise ValueError(
                f"{name} must have the shape {spec.shape} (None = any); got "
                f"{shape}."
            )
        # Floats of another width are cast; integers mean something else.
        dtype = keras.backend.standardize_dtype(memories[name].dtype)
        if dtype != spec.dtype and "int" in dtype + spec.dtype:
            raise ValueError(
                f"{name} must be of dtype {spec.dtype}; got {dtype}."
            )


def valid_slots(position, span: int):
    """Which memory slots hold something, `j >= M - min(position, M)`.

    With span 3 and position 2, slot 0 was never written:
    `valid_slots([2], 3) == [[False, True, True]]`.

    Args:
        position: [B] int32, tokens seen since the lane was reset.
        span: M, the memory length.

    Returns:
        [B, M] bool.
    """
    written = ops.minimum(position, span)[:, None]
    return ops.arange(span, dtype="int32")[None, :] >= span - written


def mask_slots(memory, valid):
    """A memory with zeros in the slots that were never written.

    Args:
        memory: [B, M, ...].
        valid: [B, M] bool, as `valid_slots` gives it.

    Returns:
        [B, M, ...], with the gradient stopped.
    """
    for _ in range(len(memory.shape) - 2):
        valid = valid[..., None]
    zero = ops.zeros((), dtype=memory.dtype)
    return ops.stop_gradient(ops.where(valid, memory, zero))


def update_memory(memory, segment, span: int, lengths=None):
    """Appends a segment to a memory and drops what is too old.

    `concat(memory, segment)[:, -M:]`, with the gradient stopped.

    Args:
        memory: [B, M, ...], or None where span is 0.
        segment: [B, T, ...], what is kept of the segment's positions.
        span: M.
        lengths: [B] int32, tokens of each lane's segment, which fill its
            front; None = T.

    Returns:
        [B, M, ...], or None where span is 0 (`x[-0:]` would be all of x).
    """
    if span == 0:
        return None
    length, *slot = segment.shape[1:]
    if lengths is not None:
        memory = take_slots(
            ops.concatenate([memory, segment], axis=1), lengths, span
        )
    elif length is None:  # T is known at run time only (serving).
        context = ops.concatenate([memory, segment], axis=1)
        memory = ops.reshape(context[:, -span:], (-1, span, *slot))
    elif length >= span:
        memory = segment[:, length - span :]
    else:
        memory = ops.concatenate([memory[:, length:], segment], axis=1)
    return ops.stop_gradient(memory)


def append_segment(memories: dict, segment: dict, lengths=None) -> dict:
    """The memories after a segment.

    Args:
        memories: a dict of those before it.
        segment: what it adds to them: by the same names [B, T, ...], and
            `position` [B] int32 after it, if it is to be in the result.
        lengths: as for `update_memory`.

    Returns:
        A dict with the names of `segment`.
    """
    after = {}
    for name, added in segment.items():
        if name != POSITION:
            memory = ops.cast(memories[name], added.dtype)
            added = update_memory(memory, added, memory.shape[1], lengths)
        after[name] = added
    return after


def take_slots(slots, start, count: int, ring: bool = False):
    """Some consecutive slots of each lane, from a slot of its own on.

    Args:
        slots: [B, S, ...].
        start: [B] int32.
        count: how many.
        ring: whether slot 0 follows slot S - 1.

    Returns:
        [B, count, ...].
    """
    batch_size, num_slots, *slot = ops.shape(slots)
    index = start[:, None] + ops.arange(count, dtype="int32")[None, :]
    if ring:
        index = index % num_slots
    lanes = ops.arange(batch_size, dtype="int32")[:, None] * num_slots
    # Whole slots are copied; to gather by lane would copy number by number.
    flat = ops.reshape(slots, (batch_size * num_slots, *slot))
    return ops.take(flat, lanes + index, axis=0)


def advance_position(position, length):
    """Adds the tokens of a segment to the lanes' positions.

    Stops short of int32's end instead of wrapping around: a negative position
    would silently empty every memory.

    Args:
        position: [B] int32.
        length: T, an integer or an int32 tensor that broadcasts to [B].

    Returns:
        [B] int32.
    """
    length = ops.cast(length, "int32")
    return ops.minimum(position, _INT32_MAX - length) + length


def reset_lanes(memories: dict, reset) -> dict:
    """Starts some lanes afresh and leaves the others bit for bit as they are.

    Args:
        memories: a dict as `initial_memories` makes it.
        reset: [B] bool, the lanes to reset.

    Returns:
        The memories with position 0 in these lanes.
    """
    position = memories[POSITION]
    return {
        **memories,
        POSITION: ops.where(reset, ops.zeros_like(position), position),
    }


def narrow_memories(memories: dict, spans: MemorySpans) -> dict:
    """Memories of shorter spans: the newest positions of each layer.

    Args:
        memories: a dict as the model returns it.
        spans: the spans to narrow to, none longer than the memory held.

    Returns:
        A dict with the names and shapes of `spans`.

    Raises:
        ValueError: if a span is longer than the memory, whose older positions
            are gone, or if there are memories of more layers than spans.
    """
    layer_of = {}
    for name in memories:
        if name != POSITION:
            _, layer, _ = split_name(name) or (None, len(spans), False)
            layer_of[name] = layer
    if beyond := sorted(x for x in layer_of if layer_of[x] >= len(spans)):
        raise ValueError(
            f"memories hold {', '.join(beyond)}, beyond the {len(spans)} "
            f"layers of {spans!r}."
        )
    narrowed = {POSITION: memories[POSITION]}
    for layer, span in enumerate(spans):
        names = [name for name in layer_of if layer_of[name] == layer]
        for name in names or [memory_name(layer)]:
            held = memories[name].shape[1] if name in memories else 0
            if span > held:
                raise ValueError(
                    f"cannot widen {name} from {held} to {span} positions: "
                    f"the older ones are gone. Spans of layer {layer} may be "
                    f"from 0 to {held}."
                )
            if span:
                narrowed[name] = ops.convert_to_tensor(memories[name])[
                    :, held - span :
                ]
    return narrowed
