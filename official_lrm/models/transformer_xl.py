"""The Transformer-XL without its softmax."""

import functools

import keras
from keras import ops

from official_lrm.layers.adaptive_embedding import AdaptiveEmbedding
from official_lrm.layers.attention_blocks import (
    block_length,
    block_positions,
    num_keys,
)
from official_lrm.layers.attention_mask import attention_mask
from official_lrm.layers.sinusoidal_positions import sinusoidal_positions
from official_lrm.layers.stateless_dropout import stateless_dropout
from official_lrm.layers.statistics_dtype import statistics_dtype
from official_lrm.layers.transformer_xl_block import TransformerXLBlock
from official_lrm.memory.memory_format import MemoryFormat
from official_lrm.memory.state import (
    POSITION,
    advance_position,
    append_segment,
    mask_slots,
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
        # Keras would cast the memories to the compute dtype.
        super().__init__(autocast=False, **kwargs)
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
        memory_format=None,
        lengths=None,
        rematerialize=None,
        projected_positions=None,
        append=True,
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
            memory_format: the MemoryFormat of `memories`; None = hidden
                states in the compute dtype. Where a smaller dtype loses
                something, a segment sees its own positions without it too:
                so it does not matter at which of them a text is cut.
            lengths: [B] int32, tokens of each lane, which fill the front of
                its row; None = T. What is behind them reaches neither the
                memories nor the tokens before.
            rematerialize: for each layer, whether the backward pass computes
                its activations again instead of holding them; None = never.
            projected_positions: as `project_positions` makes it for these
                memories and this T; None = computed here. Not in training.
            append: whether to append the segment to the memories.

        Returns:
            hidden: [B, T, D] in the compute dtype; undefined behind `lengths`.
            memories: the dict after the segment, same names and shapes; or,
                without `append`, the segment that makes it of the old one
                (`append_segment`).
        """
        num_queries = ops.shape(tokens)[1]
        position = memories[POSITION]
        memory_format = memory_format or self.memory_format()
        slots = [memory_format.slots(layer) for layer in range(self.num_layers)]
        spans = [
            memories[first].shape[1] if first in memories else 0
            for first, *_ in slots
        ]

        def drop(x, site):
            if not training:
                return x
            return stateless_dropout(x, self.dropout, seed, site)

        tables = {}
        if projected_positions is None:
            tables = self._position_tables(
                spans,
                num_queries,
                clamp_length,
                same_length,
                lambda table: drop(table, _POSITIONS_SITE),
            )

        # Layers of one span share their mask and their part of the table.
        def shared_by(span):
            seen, length = position, num_queries
            if block := block_length(span, num_queries, same_length):
                seen = block_positions(position, span, num_queries, block)
                length = block
            return (
                tables.get(span),
                attention_mask(
                    seen, span, length, same_length, attend_to_empty
                ),
                valid_slots(position, span) if span else None,
            )

        shared = {span: shared_by(span) for span in set(spans)}

        def run_layer(layer, hidden, content_bias, position_bias):
            block, span = self.blocks[layer], spans[layer]
            span_positions, mask, valid = shared[span]
            memory, keys_values, tensors = None, None, {}
            if span:
                tensors = {
                    name: ops.stop_gradient(ops.cast(memories[name], dtype))
                    for name, (_, dtype) in slots[layer].items()
                }
                # In training the mask alone hides empty slots, in which
                # nothing but finite numbers can be: zeros in them would be a
                # copy of every memory.
                if not training or attend_to_empty:
                    tensors = {
                        name: mask_slots(tensor, valid)
                        for name, tensor in tensors.items()
                    }
                memory, keys_values, added = self._remember(
                    memory_format, layer, hidden, tensors
                )
                tensors = (
                    append_segment(tensors, added, lengths) if append else added
                )
            hidden = block(
                hidden,
                memory,
                span_positions,
                content_bias,
                position_bias,
                mask,
                training=training,
                seed=seed,
                first_site=_FIRST_BLOCK_SITE + layer * block.NUM_SITES,
                keys_values=keys_values,
                relative=(
                    None
                    if projected_positions is None
                    else projected_positions[layer]
                ),
            )
            return hidden, tensors

        hidden = drop(self.embedding(tokens), _EMBEDDING_SITE)
        new_memories = {}
        for layer in range(self.num_layers):
            run = functools.partial(run_layer, layer)
            if rematerialize and rematerialize[layer]:
                run = keras.remat(run)
            hidden, tensors = run(hidden, *self.biases(layer))
            new_memories.update(tensors)
        seen = num_queries if lengths is None else lengths
        new_memories[POSITION] = advance_position(position, seen)
        return drop(hidden, _OUTPUT_SITE), new_memories

    def project_positions(
        self, spans, num_queries, clamp_length=None, same_length=False
    ):
        """The relative positions as each layer's attention sees them.

        They are functions of the weights alone: where many segments are run
        with the same ones, they need not be computed for each.

        Args:
            spans: M_l of each layer.
            num_queries: T of the segments.
            clamp_length: as for `call`.
            same_length: as for `call`.

        Returns:
            For each layer [N, K_l, H] in the compute dtype.
        """
        tables = self._position_tables(
            spans, num_queries, clamp_length, same_length
        )
        return tuple(
            block.attention.project_positions(tables[span])
            for block, span in zip(self.blocks, spans, strict=True)
        )

    def _position_tables(
        self, spans, num_queries, clamp_length, same_length, drop=None
    ):
        # For each span [M + T, D], or [M + b, D] where blocks of b are used.
        size = max(spans) + num_queries
        table = sinusoidal_positions(
            size,
            self.hidden_size,
            clamp_length,
            dtype=statistics_dtype(self.compute_dtype),
        )
        table = ops.cast(table, self.compute_dtype)
        table = table if drop is None else drop(table)
        tables = {}
        for span in set(spans):
            keys = num_keys(span, num_queries, same_length)
            tables[span] = table[size - keys :]
        return tables

    def _remember(self, memory_format, layer, hidden, tensors):
        # What a layer attends to of its memory `tensors`, as a hidden memory
        # or as all keys and values, and what the segment adds to them.
        attention = self.blocks[layer].attention
        if memory_format.content == "hidden":
            parts = {"memory": hidden}
        else:
            parts = slots_of(*attention.keys_values(hidden))
        kept = memory_format.encode(layer, parts)
        memory = memory_format.decode(layer, tensors)
        if memory_format.content == "hidden" and memory_format.is_lossless:
            return memory["memory"], None, kept
        parts = memory_format.rounded(parts)
        context = {
            part: ops.concatenate([memory[part], parts[part]], axis=1)
            for part in parts
        }
        if memory_format.content == "hidden":
            return None, attention.keys_values(context["memory"]), kept
        return None, heads_of(context), kept

    def memory_format(self, content="hidden", dtype=None):
        """The MemoryFormat of this model's sizes.

        Args:
            content: "hidden" or "key_value".
            dtype: what memories are kept in; None = the compute dtype.
        """
        return MemoryFormat(
            content,
            self.hidden_size,
            self.num_heads,
            self.head_size,
            compute_dtype=self.compute_dtype,
            dtype=dtype,
        )

    def biases(self, layer):
        """Content and position bias of a layer, [N, H] in the compute dtype.

        Args:
            layer: the layer's index.
        """
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


def slots_of(key, value):
    """Keys and values as memories keep them.

    Args:
        key: [N, B, T, H], as attention computes them.
        value: [N, B, T, H].

    Returns:
        `{"key": [B, T, N, H], "value": [B, T, N, H]}`.
    """
    return {
        "key": ops.transpose(key, (1, 2, 0, 3)),
        "value": ops.transpose(value, (1, 2, 0, 3)),
    }


def heads_of(slots):
    """Inverse of `slots_of`: (key, value), [N, B, T, H] each."""
    return tuple(
        ops.transpose(slots[part], (2, 0, 1, 3)) for part in ("key", "value")
    )
