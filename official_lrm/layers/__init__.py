"""Layers of the Transformer-XL. They import keras only."""

from official_lrm.layers.adaptive_embedding import AdaptiveEmbedding
from official_lrm.layers.adaptive_softmax import AdaptiveSoftmax
from official_lrm.layers.attention_mask import attention_mask
from official_lrm.layers.chunked_logsumexp import chunked_logsumexp
from official_lrm.layers.relative_attention import RelativeMultiHeadAttention
from official_lrm.layers.relative_shift import relative_shift
from official_lrm.layers.sinusoidal_positions import sinusoidal_positions
from official_lrm.layers.stateless_dropout import stateless_dropout
from official_lrm.layers.transformer_xl_block import TransformerXLBlock
from official_lrm.layers.vocabulary_clusters import vocabulary_clusters

__all__ = [
    "AdaptiveEmbedding",
    "AdaptiveSoftmax",
    "RelativeMultiHeadAttention",
    "TransformerXLBlock",
    "attention_mask",
    "chunked_logsumexp",
    "relative_shift",
    "sinusoidal_positions",
    "stateless_dropout",
    "vocabulary_clusters",
]
