"""Transformer-XL language models with a memory length per layer.

Implements "Do Transformers Need Deep Long-Range Memory?" (Rae & Razavi, 2020).

```python
import official_lrm as lrm

spans = lrm.MemorySpans.arrange(num_layers=24, num_long=4)
model = lrm.TransformerXLLanguageModel(
    vocab_size=256, spans=spans, hidden_size=1024, num_heads=8,
    head_size=128, inner_size=3072,
)
```
"""

import importlib
import os

# TensorFlow announces its CPU features and the absence of GPUs on import; its
# warnings and errors still show, and a level that the caller chose stands.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

from official_lrm.memory import MemorySpans
from official_lrm.models import (
    TransformerXL,
    TransformerXLLanguageModel,
)

__version__ = "0.1.0"

__all__ = [
    "MemorySpans",
    "TransformerXL",
    "TransformerXLLanguageModel",
    "__version__",
]

# They stand on TensorFlow itself; loaded when first asked for.
_LAZY = ("checkpoints", "serving")


def __getattr__(name):
    if name in _LAZY:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_LAZY})
