"""Decoding one token at a time over rings of keys and values."""

import keras
from keras import ops

from official_lrm.kernels import empty_rows, set_rows, take_rows, tensordot
from official_lrm.layers.sinusoidal_positions import sinusoidal_positions
from official_lrm.layers.statistics_dtype import statistics_dtype
from official_lrm.memory.memory_format import memory_name
from official_lrm.memory.state import (
    POSITION,
    advance_position,
    mask_slots,
    take_slots,
    valid_slots,
)

_STEPS = "steps"


class RingDecoder:
    """Computes what `model.next_logits` does for one token, without copies.

    ```python
    decoder = RingDecoder(model, memories)
    state = decoder.state
    logits, state = decoder.step(tokens, state, active)  # Again and again.
    memories = decoder.memories(state)
    ```

    A memory of M positions becomes a ring of M + 1 slots, into which a token
    writes its key and value without moving the others. The slot that it
    overwrites has held what no token of `same_length` attention sees; so a lane
    that does not go on may write there, over and over, and its memory stays as
    it is.

    Positions cost one product with a table that all layers of one span share:
    `q W_r R = (q W_r) R`, where training projects the table, `q (W_r R)`.

    Args:
        model: a TransformerXLLanguageModel with `same_length`.
        memories: its memories, of B lanes.

    Raises:
        ValueError: for a model without `same_length`.
    """

    def __init__(self, model, memories):
        if not model.same_length:
            raise ValueError(
                "model must have same_length=True; got a model without, where "
                "a token's keys depend on how a text is cut."
            )
        self._model = model
        self._backbone = model.backbone
        self._format = model.memory_format
        self._weights = [_Weights(block) for block in model.backbone.blocks]
        self._biases = [
            model.backbone.biases(layer) for layer in range(len(model.spans))
        ]
        self._tables = {
            span: self._table(span) for span in set(model.spans) - {0}
        }
        self.state = self._start(memories)

    def step(self, tokens, state, active):
        """Feeds a token to each lane.

        Args:
            tokens: [B] int32.
            state: what `state` or the last step gave. It is not to be used
                again.
            active: [B] bool; the state of other lanes stays as it is, and
                their logits mean nothing.

        Returns:
            logits: [B, V] float32, of the tokens after.
            state: a dict.
        """
        backbone, softmax = self._backbone, self._model.softmax
        spans = self._model.spans
        shared = {span: self._slots(span, state) for span in self._tables}
        new_state = {}
        hidden = backbone.embedding(tokens[:, None])[:, 0]  # [B, D]
        for layer, (block, weights) in enumerate(
            zip(backbone.blocks, self._weights, strict=True)
        ):
            attended, written = self._attend(
                layer, hidden, state, shared.get(spans[layer])
            )
            new_state.update(written)
            hidden = block.attention_norm(hidden + attended)
            inner = ops.relu(ops.matmul(hidden, weights.inner) + weights.b_in)
            outer = ops.matmul(inner, weights.outer) + weights.b_out
            hidden = block.feed_forward_norm(hidden + outer)
        new_state[POSITION] = advance_position(
            state[POSITION], ops.cast(active, "int32")
        )
        new_state[_STEPS] = state[_STEPS] + ops.cast(active, "int32")
        logits = softmax(hidden[:, None], embedding=backbone.embedding)
        return logits[:, 0], new_state

    def memories(self, state):
        """The memories after the tokens that active lanes were fed.

        Args:
            state: a dict as `step` gives it.

        Returns:
            A dict with the names, shapes and dtypes of the model's.
        """
        memories = {POSITION: state[POSITION]}
        for layer, span in enumerate(self._model.spans):
            if not span:
                continue
            parts = {
                part: self._slots_of(state[memory_name(layer, part)], span)
                for part in self._format.parts
            }
            # Slot `steps` is the oldest but the spare one.
            parts = {
                part: take_slots(slots, state[_STEPS], span, ring=True)
                for part, slots in parts.items()
            }
            memories.update(self._format.encode(layer, parts))
        return memories

    def _start(self, memories):
        position = memories[POSITION]
        state = {POSITION: position, _STEPS: ops.zeros_like(position)}
        for layer, span in enumerate(self._model.spans):
            if not span:
                continue
            valid = valid_slots(position, span)
            parts = self._format.decode(
                layer,
                {
                    name: mask_slots(memories[name], valid)
                    for name in self._format.slots(layer)
                },
            )
            if self._format.content == "hidden":
                attention = self._backbone.blocks[layer].attention
                key, value = (
                    ops.transpose(x, (1, 0, 2, 3))
                    for x in attention.keys_values(parts["memory"])
                )
            else:
                key, value = (
                    ops.transpose(parts[part], (0, 2, 1, 3))
                    for part in ("key", "value")
                )
            rings = {**parts, "key": key, "value": value}
            for part, slots in rings.items():
                state[memory_name(layer, part)] = self._ring_of(slots)
        return state

    def _attend(self, layer, hidden, state, slots):
        # [B, D] -> [B, D], and the rings that it was written to.
        weights, memory_format = self._weights[layer], self._format
        query = _to_heads(hidden, weights.query)
        rows = {"memory": hidden}
        # What is not kept is not rounded.
        if slots is not None and memory_format.content == "hidden":
            rows = self._rounded(rows)
        for part, kernel in (("key", weights.key), ("value", weights.value)):
            rows[part] = _to_heads(rows["memory"], kernel)
        if memory_format.content != "hidden":
            del rows["memory"]
            if slots is not None:
                rows = self._rounded(rows)
        rings = {}
        if slots is None:  # No memory: a token sees itself.
            attended = rows["value"]
        else:
            for part, row in rows.items():
                name = memory_name(layer, part)
                rings[name] = set_rows(
                    state[name],
                    slots.lane_rows if part == "memory" else slots.head_rows,
                    ops.reshape(row, (-1, row.shape[-1])),
                )
            attended = self._ring_attention(
                layer,
                query,
                rings[memory_name(layer, "key")],
                rings[memory_name(layer, "value")],
                slots,
            )
        attended = ops.reshape(attended, (-1, weights.output.shape[0]))
        return ops.matmul(attended, weights.output), rings

    def _ring_attention(self, layer, query, keys, values, slots):
        # [B, N, H] over [B * N * R, H] -> [B * N, 1, H]
        weights = self._weights[layer]
        num_heads, head_size = weights.num_heads, weights.head_size
        keys, values = (
            ops.reshape(ring, (-1, slots.size, head_size))
            for ring in (keys, values)
        )
        content_bias, position_bias = self._biases[layer]
        scale = head_size**-0.5
        content_query = ops.reshape(
            (query + content_bias) * scale, (-1, 1, head_size)
        )
        position_query = (query + position_bias) * scale
        position_query = ops.reshape(
            ops.matmul(position_query[:, :, None], weights.position),
            (-1, self._backbone.hidden_size),
        )  # [B * N, D]
        scores = ops.matmul(content_query, ops.transpose(keys, (0, 2, 1)))
        by_distance = ops.matmul(position_query, slots.table)  # [B * N, R]
        by_slot = take_rows(
            ops.reshape(by_distance, (-1,)), slots.distance_index
        )
        scores = ops.reshape(scores, (-1, num_heads, slots.size)) + by_slot
        dtype = self._backbone.compute_dtype
        scores = ops.cast(scores, statistics_dtype(dtype))
        # Added, not selected: half the time.
        probabilities = ops.softmax(scores + slots.mask[:, None])
        probabilities = ops.cast(probabilities, dtype)
        probabilities = ops.reshape(probabilities, (-1, 1, slots.size))
        return ops.matmul(probabilities, values)

    def _rounded(self, rows):
        # [B, ...] each.
        if self._format.is_lossless:
            return rows
        parts = {part: row[:, None] for part, row in rows.items()}
        rounded = self._format.rounded(parts)
        return {part: value[:, 0] for part, value in rounded.items()}

    def _slots(self, span, state):
        return _Slots(
            span,
            self._backbone.num_heads,
            state[POSITION],
            state[_STEPS],
            self._model.attend_to_empty,
            self._tables[span],
        )

    def _table(self, span):
        # [D, M + 1], column d is the distance d.
        dtype = self._backbone.compute_dtype
        table = sinusoidal_positions(
            span + 1,
            self._backbone.hidden_size,
            self._model.clamp_length,
            dtype=statistics_dtype(dtype),
        )
        return ops.cast(ops.transpose(ops.flip(table, axis=0)), dtype)

    def _ring_of(self, slots):
        # [B, ..., M, X] -> [B * ... * (M + 1), X]
        shape = list(ops.shape(slots))
        shape[-2] = 1
        spare = empty_rows(shape, self._backbone.compute_dtype)
        ring = ops.concatenate([slots, spare], axis=-2)
        return ops.reshape(ring, (-1, shape[-1]))

    def _slots_of(self, ring, span):
        # The inverse, as memories keep it: [B, M + 1, ...].
        size = ring.shape[-1]
        if self._format.content == "hidden":
            return ops.reshape(ring, (-1, span + 1, size))
        num_heads = self._backbone.num_heads
        heads = ops.reshape(ring, (-1, num_heads, span + 1, size))
        return ops.transpose(heads, (0, 2, 1, 3))


class _Slots:
    """Where the tokens of a step go, and what they see, in rings of a span."""

    def __init__(
        self, span, num_heads, position, steps, attend_to_empty, table
    ):
        self.size = span + 1
        self.table = table
        batch_size = ops.shape(steps)[0]
        head = (steps + span) % self.size  # [B], the slot written.
        lanes = ops.arange(batch_size, dtype="int32") * self.size
        self.lane_rows = lanes + head
        # Rings of all lanes and heads, lanes first.
        heads = ops.arange(batch_size * num_heads, dtype="int32") * self.size
        heads = ops.reshape(heads, (-1, num_heads))
        self.head_rows = ops.reshape(heads + head[:, None], (-1,))  # [B * N]
        distance = (
            head[:, None] - ops.arange(self.size, dtype="int32")
        ) % self.size  # [B, R]
        self.distance_index = heads[:, :, None] + distance[:, None]
        visible = distance < span
        if not attend_to_empty:
            visible = ops.logical_and(visible, distance <= position[:, None])
        dtype = statistics_dtype(keras.backend.standardize_dtype(table.dtype))
        self.mask = ops.where(visible, 0.0, ops.cast(-1e30, dtype))  # [B, R]


class _Weights:
    """A block's kernels, in the compute dtype, as a loop captures them."""

    def __init__(self, block):
        attention = block.attention
        dtype = block.compute_dtype
        self.num_heads = attention.num_heads
        self.head_size = attention.head_size

        def cast(kernel):
            return ops.cast(kernel, dtype)

        # [N, H, D] each.
        self.query = cast(attention.query_kernel)
        self.key = cast(attention.key_kernel)
        self.value = cast(attention.value_kernel)
        self.position = cast(attention.position_kernel)
        self.output = ops.reshape(
            cast(attention.output_kernel), (-1, block.hidden_size)
        )  # [N * H, D]
        self.inner, self.b_in = cast(block.inner.kernel), cast(block.inner.bias)
        self.outer, self.b_out = (
            cast(block.outer.kernel),
            cast(block.outer.bias),
        )


def _to_heads(rows, kernel):
    # [B, D], [N, H, D] -> [B, N, H]
    return tensordot(rows, kernel, ((1,), (2,)))
