"""The Transformer-XL without its softmax."""

import keras
from keras import ops

from official_lrm.layers.adaptive_embedding import AdaptiveEmbedding
from official_lrm.layers.attention_mask import attention_mask
from official_lrm.layers.sinusoidal_positions import sinusoidal_positions
from official_lrm.layers.stateless_dropout import stateless_dropout
from official_lrm.layers.transformer_xl_block import TransformerXLBlock
from official_lrm.memory.state import (
    POSITION,
    advance_position,
    memory_name,
    update_memory,
    valid_slots,
)

# Dropout sites: three of the model's own, then those of each block.
_EMBEDDING_SITE, _POSITIONS_SITE, _OUTPUT_SITE, _FIRST_BLOCK_SITE = range(4)


@keras.saving.register_keras_serializable("official_lrm")
class TransformerXL(keras.Model):
    """Embedding and Transformer-XL blocks, over memories of any lengths.

    The backbone holds all weights but the softmax's, and no memory length:
    the spans are those of the memories that it is called with.

    Source: Dai et al. (2019); memory lengths per layer: Rae & Razavi (2020).

    Args:
        vocab_size: V.
        num_layers: L.
        hidden_size: D, even.
        num_heads: N.
        head_size: H.
        inner_size: F.
        dropout: rate everywhere but on attention probabilities.
        attention_dropout: rate on attention probabilities.
        untie_biases: whether each layer has its own pair of attention biases.
        layer_norm_epsilon: added to the variance in layer norms.
        initializer_stddev: of all kernels, normal.
        cutoffs: rising token ids that cut the embedding into clusters.
        div_value: by which the embedding's width shrinks from a cluster to
            the next.
        embedding_size: E, width of the first cluster; None = D.
        projection_initializer_stddev: of the embedding's projections, normal.
    """

    def __init__(
        self,
        vocab_size,
        num_layers,
        hidden_size,
        num_heads,
        head_size,
        inner_size,
        dropout=0.0,
        attention_dropout=0.0,
        untie_biases=False,
        layer_norm_epsilon=1e-5,
        initializer_stddev=0.02,
        cutoffs=(),
        div_value=1,
        embedding_size=None,
        projection_initializer_stddev=0.01,
        **kwargs,
    ):
        super().__init__(**kwargs)
        # === Config ===
        self.vocab_size = vocab_size
        self.num_layers = num_layers
        self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.head_size = head_size
        self.inner_size = inner_size
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.untie_biases = untie_biases
        self.layer_norm_epsilon = layer_norm_epsilon
        self.initializer_stddev = initializer_stddev

        # === Layers ===
        self.embedding = AdaptiveEmbedding(
            vocab_size,
            hidden_size,
            cutoffs=cutoffs,
            div_value=div_value,
            embedding_size=embedding_size,
            initializer_stddev=initializer_stddev,
            projection_initializer_stddev=projection_initializer_stddev,
            dtype=self.dtype_policy,
            name="embedding",
        )
        self.blocks = [
            TransformerXLBlock(
                hidden_size,
                num_heads,
                head_size,
                inner_size,
                dropout=dropout,
                attention_dropout=attention_dropout,
                layer_norm_epsilon=layer_norm_epsilon,
                initializer_stddev=initializer_stddev,
                dtype=self.dtype_policy,
                name=f"block_{layer:02d}",
            )
            for layer in range(num_layers)
        ]
        self.build()

    def build(self, tokens_shape=None):
        """Creates all weights; their shapes follow from the config."""
        del tokens_shape
        self.embedding.build()
        for block in self.blocks:
            block.build()
        shape = (self.num_heads, self.head_size)
        if self.untie_biases:
            shape = (self.num_layers, *shape)
        initializer = keras.initializers.RandomNormal(
            stddev=self.initializer_stddev
        )
        self.content_bias, self.position_bias = (
            self.add_weight(name=name, shape=shape, initializer=initializer)
            for name in ("content_bias", "position_bias")
        )
        self.built = True

    def call(
        self,
        tokens,
        memories,
        clamp_length=None,
        same_length=False,
        attend_to_empty=False,
        training=False,
        seed=None,
    ):
        """Runs a segment.

        Args:
            tokens: [B, T] integers.
            memories: dict of `memory_00` … [B, M_l, D] for the layers that
                have one, and `position` [B] int32.
            clamp_length: distances beyond it count as it; None = no clamp.
            same_length: whether each query sees exactly M_l keys.
            attend_to_empty: whether slots that were never written are seen,
                as zero vectors.
            training: whether to apply dropout.
            seed: [2] integer tensor, needed where dropout is applied.

        Returns:
            hidden: [B, T, D] in the compute dtype.
            memories: the dict after the segment, same names and shapes.
        """
        num_queries = ops.shape(tokens)[1]
        position = memories[POSITION]
        spans = [
            memories[memory_name(layer)].shape[1]
            if memory_name(layer) in memories
            else 0
            for layer in range(self.num_layers)
        ]

        def drop(x, site):
            if not training:
                return x
            return stateless_dropout(x, self.dropout, seed, site)

        table_dtype = (
            "float64" if self.compute_dtype == "float64" else ("float32")
        )
        positions = sinusoidal_positions(
            max(spans) + num_queries,
            self.hidden_size,
            clamp_length,
            dtype=table_dtype,
        )
        positions = drop(
            ops.cast(positions, self.compute_dtype), _POSITIONS_SITE
        )
        # Layers of one span share their mask and their part of the table.
        shared = {
            span: (
                positions[max(spans) - span :],
                attention_mask(
                    position, span, num_queries, same_length, attend_to_empty
                ),
                valid_slots(position, span)[:, :, None] if span else None,
            )
            for span in set(spans)
        }

        hidden = drop(self.embedding(tokens), _EMBEDDING_SITE)
        new_memories = {}
        for layer, (block, span) in enumerate(
            zip(self.blocks, spans, strict=True)
        ):
            span_positions, mask, valid = shared[span]
            name = memory_name(layer)
            memory = None
            if span:
                memory = ops.stop_gradient(ops.where(valid, memories[name], 0))
                new_memories[name] = update_memory(memory, hidden, span)
            hidden = block(
                hidden,
                memory,
                span_positions,
                *self._biases(layer),
                mask,
                training=training,
                seed=seed,
                first_site=_FIRST_BLOCK_SITE + layer * block.NUM_SITES,
            )
        new_memories[POSITION] = advance_position(position, num_queries)
        return drop(hidden, _OUTPUT_SITE), new_memories

    def _biases(self, layer):
        biases = self.content_bias, self.position_bias
        if self.untie_biases:
            biases = tuple(bias[layer] for bias in biases)
        return tuple(ops.cast(bias, self.compute_dtype) for bias in biases)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "vocab_size": self.vocab_size,
            "num_layers": self.num_layers,
            "hidden_size": self.hidden_size,
            "num_heads": self.num_heads,
            "head_size": self.head_size,
            "inner_size": self.inner_size,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "untie_biases": self.untie_biases,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "initializer_stddev": self.initializer_stddev,
            "cutoffs": list(self.embedding.cutoffs),
            "div_value": self.embedding.div_value,
            "embedding_size": self.embedding.embedding_size,
            "projection_initializer_stddev": (
                self.embedding.projection_initializer_stddev
            ),
        }
