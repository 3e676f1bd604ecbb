"""A Transformer-XL language model with memory spans per layer."""

import keras
from keras import ops

from official_lrm.kernels import computed_again
from official_lrm.layers.adaptive_softmax import AdaptiveSoftmax
from official_lrm.layers.attention_blocks import num_keys
from official_lrm.layers.statistics_dtype import statistics_dtype
from official_lrm.memory.spans import MemorySpans
from official_lrm.memory.state import (
    POSITION,
    append_segment,
    check_memories,
    initial_memories,
    memory_specs,
    take_slots,
)
from official_lrm.models import presets
from official_lrm.models.arguments import (
    backbone_arguments,
    check_arguments,
    softmax_arguments,
    spans_of_layers,
)
from official_lrm.models.transformer_xl import TransformerXL


@keras.saving.register_keras_serializable("official_lrm")
class TransformerXLLanguageModel(keras.Model):
    """A Transformer-XL language model whose layers remember different lengths.

    ```python
    spans = MemorySpans.arrange(num_layers=4, num_long=1, long=96, short=8)
    model = TransformerXLLanguageModel(
        vocab_size=256, spans=spans, hidden_size=32, num_heads=2,
        head_size=16, inner_size=64,
    )
    memories = model.initial_memories(batch_size=2)
    logits, memories = model(tokens, memories)  # Segment after segment.
    ```

    The parameters never depend on `spans`, `clamp_length`, `same_length` or
    `attend_to_empty`: any checkpoint runs under any of them (`with_spans`).

    Source: Rae & Razavi (2020); the model: Dai et al. (2019).

    Args:
        vocab_size: V.
        spans: MemorySpans, or a tuple of one length per layer; its length is
            the number of layers L.
        hidden_size: D, even.
        num_heads: N.
        head_size: H.
        inner_size: F.
        dropout: rate from 0 to 1 everywhere but on attention probabilities.
        attention_dropout: rate on attention probabilities.
        untie_biases: whether each layer has its own pair of attention biases.
        clamp_length: distances beyond it count as it; None = no clamp.
        same_length: whether each query sees exactly M_l keys once memory is
            full, so that results do not depend on how a text is cut.
        cutoffs: rising token ids between 0 and V that cut the vocabulary, most
            frequent tokens first, into the clusters of an adaptive embedding
            and softmax; () = one softmax.
        div_value: by which the embedding's width shrinks from a cluster to
            the next.
        embedding_size: E, width of the first cluster; None = D.
        tie_embeddings: whether embedding and softmax share their tables.
        share_projections: whether they share their projections, [E_i, D], of
            all clusters but the first.
        layer_norm_epsilon: added to the variance in layer norms.
        attend_to_empty: whether memory slots that were never written are seen
            as zero vectors (the TensorFlow reference and Hugging Face do so)
            or masked.
        memory_format: what memories hold: "hidden", layer inputs [B, M_l, D]
            named `memory_00` …, or "key_value", keys and values [B, M_l, N, H]
            named `key_00`, `value_00` …, which need no projection again; for
            inference.
        memory_dtype: what memories are kept in: a float dtype, or "int8" with
            one scale per position (`memory_00_scale` [B, M_l] …); None = the
            compute dtype.
        initializer_stddev: of all kernels, normal.
        projection_initializer_stddev: of the projections, normal.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """

    def __init__(
        self,
        vocab_size,
        spans,
        hidden_size,
        num_heads,
        head_size,
        inner_size,
        dropout=0.0,
        attention_dropout=0.0,
        untie_biases=False,
        clamp_length=None,
        same_length=False,
        cutoffs=(),
        div_value=1,
        embedding_size=None,
        tie_embeddings=True,
        share_projections=True,
        layer_norm_epsilon=1e-5,
        attend_to_empty=False,
        memory_format="hidden",
        memory_dtype=None,
        initializer_stddev=0.02,
        projection_initializer_stddev=0.01,
        _shared_layers=None,
        **kwargs,
    ):
        # Keras would cast the memories to the compute dtype.
        super().__init__(autocast=False, **kwargs)
        weights_config, clamp_length = check_arguments(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_heads=num_heads,
            head_size=head_size,
            inner_size=inner_size,
            dropout=dropout,
            attention_dropout=attention_dropout,
            untie_biases=untie_biases,
            layer_norm_epsilon=layer_norm_epsilon,
            initializer_stddev=initializer_stddev,
            clamp_length=clamp_length,
            cutoffs=cutoffs,
            div_value=div_value,
            embedding_size=embedding_size,
            tie_embeddings=tie_embeddings,
            share_projections=share_projections,
            projection_initializer_stddev=projection_initializer_stddev,
        )

        # === Config ===
        self.spans = MemorySpans(spans)
        self.clamp_length = clamp_length
        self.same_length = bool(same_length)
        self.attend_to_empty = bool(attend_to_empty)
        self._weights_config = weights_config
        self._memory_config = {
            "memory_format": memory_format,
            "memory_dtype": memory_dtype,
        }

        # === Layers ===
        if _shared_layers is None:
            self.backbone = TransformerXL(
                num_layers=len(self.spans),
                **backbone_arguments(weights_config),
                dtype=self.dtype_policy,
                name="transformer_xl",
            )
            self.softmax = AdaptiveSoftmax(
                **softmax_arguments(weights_config),
                dtype=statistics_dtype(self.compute_dtype),
                name="softmax",
            )
            # Here, not in `build`: the paths of the variables, which
            # checkpoints are keyed by, then do not hold this model's name.
            self.softmax.build()
            # For calls with training=True and no seed of the caller's.
            self.seed_generator = keras.random.SeedGenerator(
                name="dropout_seed"
            )
        else:
            self.backbone, self.softmax, self.seed_generator = _shared_layers
        self.memory_format = self.backbone.memory_format(
            memory_format, memory_dtype
        )
        self.build()

    def build(self, tokens_shape=None):
        """Nothing is left to create: layers are built with the model."""
        del tokens_shape
        self.built = True

    @property
    def vocab_size(self):
        """V."""
        return self._weights_config["vocab_size"]

    @property
    def hidden_size(self):
        """D."""
        return self._weights_config["hidden_size"]

    def call(
        self, tokens, memories=None, training=False, seed=None, lengths=None
    ):
        """Runs a segment.

        Args:
            tokens: [B, T] integers in [0, V).
            memories: dict as `initial_memories` makes it; None = fresh ones.
            training: whether to apply dropout.
            seed: [2] integer tensor that dropout masks are drawn from, another
                one for each step and replica; by default the model's own
                generator counts up.
            lengths: [B] integers from 0 to T, tokens of each lane where they
                differ; the rest of its row is padding on the right, any valid
                tokens. Memories and position come out as if the lane had been
                given alone; logits at padding are undefined. None = T.

        Returns:
            logits: [B, T, V] float32, unnormalised; log-probabilities if there
                are cutoffs.
            memories: the dict after the segment, same names, shapes and
                dtypes.

        Raises:
            ValueError: if the memories are not those of `spans`.
        """
        hidden, memories = self.hidden_states(
            tokens, memories, training, seed, lengths
        )
        return self.softmax(hidden, embedding=self.backbone.embedding), memories

    def score(
        self,
        tokens,
        targets,
        memories=None,
        training=False,
        seed=None,
        rematerialize=False,
        projected_positions=None,
        append=True,
    ):
        """Log-probabilities of given next tokens.

        With cutoffs only the clusters that the targets are in are computed,
        and nothing of size [B, T, V] exists, in training neither.

        Args:
            tokens: [B, T] integers in [0, V).
            targets: [B, T] integers in [0, V), the caller's next tokens.
            memories: as for `call`.
            training: as for `call`.
            seed: as for `call`.
            rematerialize: layers whose activations the backward pass computes
                again instead of holding them, for the same gradient in less
                memory and more time: True = all, "long" = those with a long
                memory (`spans.is_long`), False = none.
            projected_positions: what `project_positions(T)` returned, for as
                long as the weights are the same; None = computed here. Not in
                training.
            append: whether to append the segment to the memories. Who has a
                gradient to compute first saves holding them twice: see
                `append_segment`.

        Returns:
            log_probs: [B, T] float32, log p(targets[b, t] | tokens[b, :t + 1],
                memory), natural logarithm.
            memories: the dict after the segment, or the segment.

        Raises:
            ValueError: if the memories are not those of `spans`.
        """
        hidden, memories = self.hidden_states(
            tokens,
            memories,
            training,
            seed,
            rematerialize=rematerialize,
            projected_positions=projected_positions,
            append=append,
        )
        log_probs = self.softmax(
            hidden, embedding=self.backbone.embedding, targets=targets
        )
        return log_probs, memories

    def append_segment(self, memories, segment, gradients):
        """The memories after a segment, once its gradients are there.

        XLA, which drops control dependencies, would else copy each memory of a
        layer in front of the backward pass, in order to overwrite afterwards
        the one that was donated to the step.

        Args:
            memories: a dict of those before the segment.
            segment: what `score` gave of it without `append`.
            gradients: of `trainable_variables`, in their order.

        Returns:
            A dict of the memories after it.
        """
        # The first variable is a bias of attention, to which all layers
        # contribute: the first layer, which is the last to, as well.
        read = {
            name: computed_again(memory, later=gradients[0])
            for name, memory in memories.items()
            if name != POSITION
        }
        return append_segment(read, segment)

    def next_logits(self, tokens, memories=None, lengths=None):
        """Logits of the token after the segment only.

        Args:
            tokens: [B, T] integers in [0, V), T >= 1.
            memories: as for `call`.
            lengths: as for `call`; undefined logits where it is 0.

        Returns:
            logits: [B, V] float32, as `call` gives them.
            memories: the dict after the segment.
        """
        hidden, memories = self.hidden_states(tokens, memories, lengths=lengths)
        if lengths is None:
            last = hidden[:, -1:]
        else:
            last = take_slots(hidden, ops.maximum(lengths - 1, 0), 1)
        logits = self.softmax(last, embedding=self.backbone.embedding)
        return logits[:, 0], memories

    def hidden_states(
        self,
        tokens,
        memories=None,
        training=False,
        seed=None,
        lengths=None,
        rematerialize=False,
        projected_positions=None,
        append=True,
    ):
        """What the softmax makes logits of.

        Args:
            tokens: as for `call`.
            memories: as for `call`.
            training: as for `call`.
            seed: as for `call`.
            lengths: as for `call`.
            rematerialize: as for `score`.
            projected_positions: as for `score`.
            append: as for `score`.

        Returns:
            hidden: [B, T, D] in the compute dtype.
            memories: the dict after the segment, or the segment.

        Raises:
            ValueError: if the memories are not those of `spans`, or the
                projected positions not those of T or given in training.
        """
        tokens = ops.convert_to_tensor(tokens)
        dtype = keras.backend.standardize_dtype(tokens.dtype)
        if "int" not in dtype or len(tokens.shape) != 2:
            raise ValueError(
                "tokens must be integers of shape [B, T]; got "
                f"{dtype} of shape {tuple(tokens.shape)}."
            )
        tokens = ops.cast(tokens, "int32")
        if memories is None:
            memories = self.initial_memories(ops.shape(tokens)[0])
        check_memories(
            memories, self.spans, self.memory_format, tokens.shape[0]
        )
        if lengths is not None:
            lengths = ops.cast(lengths, "int32")
        if training and self.memory_format.content != "hidden":
            raise ValueError(
                'memory_format must be "hidden" in training, where keys and '
                "values of the memory get a gradient; got "
                f"{self.memory_format.content!r}."
            )
        if training and self.memory_format.dtype == "int8":
            raise ValueError(
                "memory_dtype must be a float dtype in training, as rounding "
                "to integers has no gradient; got int8."
            )
        if projected_positions is not None:
            self._check_positions(
                projected_positions, tokens.shape[1], training
            )
        if training and seed is None and self._drops:
            seed = self.seed_generator.next()
        return self.backbone(
            tokens,
            memories,
            clamp_length=self.clamp_length,
            same_length=self.same_length,
            attend_to_empty=self.attend_to_empty,
            training=training,
            seed=seed,
            memory_format=self.memory_format,
            lengths=lengths,
            rematerialize=self._rematerialized(rematerialize),
            projected_positions=projected_positions,
            append=append,
        )

    def project_positions(self, segment_length):
        """The relative positions as the layers see them, for many segments.

        ```python
        projected = model.project_positions(512)
        for tokens, targets in segments:  # of 512 tokens
            log_probs, memories = model.score(
                tokens, targets, memories, projected_positions=projected
            )
        ```

        Without it each call computes them anew, M_l + T of them in layer l,
        whatever the number of lanes. They are stale as soon as a weight
        changes.

        Args:
            segment_length: T.

        Returns:
            For each layer [N, K_l, H] in the compute dtype, K_l = M_l + T or,
            under `same_length`, less where T is much longer than M_l.
        """
        return self.backbone.project_positions(
            self.spans.lengths,
            segment_length,
            clamp_length=self.clamp_length,
            same_length=self.same_length,
        )

    def _check_positions(self, projected, segment_length, training):
        if training:
            raise ValueError(
                "projected_positions must be None in training, where their "
                "kernels get a gradient."
            )
        if segment_length is None:  # Known when it runs.
            return
        given = [x.shape[1] for x in projected]
        expected = [
            num_keys(span, segment_length, self.same_length)
            for span in self.spans
        ]
        if given != expected:
            raise ValueError(
                "projected_positions must be those that project_positions("
                f"{segment_length}) returns, of {expected} positions in the "
                f"layers; got {given}."
            )

    def _rematerialized(self, layers):
        if layers == "long":
            return self.spans.is_long
        if not isinstance(layers, bool):
            raise ValueError(
                f'rematerialize must be True, False or "long"; got {layers!r}.'
            )
        return (layers,) * len(self.spans)

    @property
    def _drops(self):
        config = self._weights_config
        return bool(config["dropout"] or config["attention_dropout"])

    def initial_memories(self, batch_size):
        """Memories of lanes that have seen nothing.

        Args:
            batch_size: B, an integer or a scalar integer tensor.

        Returns:
            A dict: `memory_00` … [B, M_l, D] in the compute dtype for the
            layers whose span is not 0 (or what `memory_format` says), and
            `position` [B] int32; all zero.
        """
        return initial_memories(self.spans, self.memory_format, batch_size)

    def memory_specs(self, batch_size=None):
        """Shapes and dtypes of the memories, by name.

        Args:
            batch_size: B, or None where it is not known.

        Returns:
            A dict of (shape, dtype) pairs.
        """
        return memory_specs(self.spans, self.memory_format, batch_size)

    def with_spans(self, spans, **overrides):
        """A model of other memory spans that shares this model's weights.

        ```python
        wide = model.with_spans(model.spans.with_long(6000))
        ```

        Args:
            spans: MemorySpans or a tuple of one length per layer.
            **overrides: of `clamp_length`, `same_length`, `attend_to_empty`,
                `memory_format` and `memory_dtype`, which weights do not
                depend on either.

        Returns:
            A TransformerXLLanguageModel.

        Raises:
            ValueError: if `spans` is not of this model's number of layers.
            TypeError: for an override of anything else.
        """
        spans = spans_of_layers(spans, len(self.spans), "the model")
        geometry = self._geometry()
        if unknown := set(overrides) - set(geometry):
            raise TypeError(
                f"with_spans takes {', '.join(geometry)}; got "
                f"{', '.join(sorted(unknown))}."
            )
        return type(self)(
            spans=spans,
            **self._weights_config,
            **{**geometry, **overrides},
            name=self.name,
            dtype=self.dtype_policy,
            _shared_layers=(self.backbone, self.softmax, self.seed_generator),
        )

    def save_to_preset(self, path, tokenizer=None):
        """Writes the model as a folder of readable files.

        Args:
            path: the folder; made if missing.
            tokenizer: saved beside the weights, or None.
        """
        presets.save_preset(self, path, tokenizer)

    @classmethod
    def from_preset(cls, path, spans=None, dtype=None):
        """Loads a model that `save_to_preset` wrote.

        Args:
            path: the folder.
            spans: other memory spans than the preset's, for as many layers.
            dtype: a Keras dtype policy or its name; None = the global one.

        Returns:
            A TransformerXLLanguageModel.

        Raises:
            FileNotFoundError: if the folder holds no preset.
            ValueError: naming what in the preset cannot be read.
        """
        return presets.load_preset(cls, path, spans=spans, dtype=dtype)

    def _geometry(self):
        return {
            "clamp_length": self.clamp_length,
            "same_length": self.same_length,
            "attend_to_empty": self.attend_to_empty,
            **self._memory_config,
        }

    def get_config(self):
        """Returns the constructor's arguments, JSON-serializable."""
        return {
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "spans": self.spans.get_config(),
            **self._weights_config,
            **self._geometry(),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Inverse of `get_config`."""
        del custom_objects
        config = dict(config)
        if isinstance(config["spans"], dict):
            config["spans"] = MemorySpans.from_config(config["spans"])
        if isinstance(config.get("dtype"), dict):
            config["dtype"] = keras.saving.deserialize_keras_object(
                config["dtype"]
            )
        return cls(**config)
