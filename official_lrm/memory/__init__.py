"""Memory spans and the state that they imply."""

from official_lrm.memory.memory_format import MemoryFormat, memory_name
from official_lrm.memory.spans import MemorySpans
from official_lrm.memory.state import (
    MemorySpec,
    append_segment,
    initial_memories,
    memory_specs,
    narrow_memories,
    reset_lanes,
    update_memory,
    valid_slots,
)

__all__ = [
    "MemoryFormat",
    "MemorySpans",
    "MemorySpec",
    "append_segment",
    "initial_memories",
    "memory_name",
    "memory_specs",
    "narrow_memories",
    "reset_lanes",
    "update_memory",
    "valid_slots",
]
