"""Stateful SavedModels: signatures, export, and text through them.

Needs TensorFlow; `official_lrm` loads it when first asked for.
"""

from official_lrm.serving.export import (
    NUM_SESSIONS,
    describe_state,
    export_saved_model,
    next_version,
    versions,
)
from official_lrm.serving.signatures import ServingModule
from official_lrm.serving.text_generator import TextGenerator

__all__ = [
    "NUM_SESSIONS",
    "ServingModule",
    "TextGenerator",
    "describe_state",
    "export_saved_model",
    "next_version",
    "versions",
]
