"""Converters between published Transformer-XL checkpoints and this model."""

from official_lrm.checkpoints.conversion import convert_checkpoint
from official_lrm.checkpoints.transfo_xl import (
    from_transfo_xl,
    to_transfo_xl,
)
from official_lrm.checkpoints.transformer_xl_tf1 import (
    from_transformer_xl_tf1,
)

__all__ = [
    "convert_checkpoint",
    "from_transfo_xl",
    "from_transformer_xl_tf1",
    "to_transfo_xl",
]
