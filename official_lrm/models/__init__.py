"""Models. They import keras only."""

from official_lrm.models.language_model import TransformerXLLanguageModel
from official_lrm.models.transformer_xl import TransformerXL

__all__ = ["TransformerXL", "TransformerXLLanguageModel"]
