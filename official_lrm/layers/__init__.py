"""Layers of the Transformer-XL. They import keras only."""

from official_lrm.layers.attention_mask import attention_mask
from official_lrm.layers.relative_attention import (
    RelativeMultiHeadAttention,
    relative_shift,
)
from official_lrm.layers.sinusoidal_positions import sinusoidal_positions
from official_lrm.layers.stateless_dropout import stateless_dropout
from official_lrm.layers.token_embedding import TokenEmbedding, TokenSoftmax
from official_lrm.layers.transformer_xl_block import TransformerXLBlock

__all__ = [
    "RelativeMultiHeadAttention",
    "TokenEmbedding",
    "TokenSoftmax",
    "TransformerXLBlock",
    "attention_mask",
    "relative_shift",
    "sinusoidal_positions",
    "stateless_dropout",
]
