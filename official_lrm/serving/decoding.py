"""Generation in the graph, one token at a time."""

import tensorflow as tf

from official_lrm.memory.state import POSITION
from official_lrm.models.ring_decoder import RingDecoder
from official_lrm.models.sampling import sample_tokens
from official_lrm.serving import checks

#: Tokens of a prompt that are read at once: attention scores need memory for
#: each of them and each key. Fewer where there are many lanes.
PROMPT_PIECE = 512


def generate_tokens(
    model,
    tokens,
    lengths,
    memories,
    max_new_tokens,
    temperature,
    top_k,
    top_p,
    seed,
    stop_token,
):
    """Consumes a prompt and writes on.

    Lanes are independent: one that has reached its `max_new_tokens` or has
    drawn its `stop_token` (which is part of the output) freezes, memories and
    position included, while others go on.

    Args:
        model: a TransformerXLLanguageModel with `same_length`, so that
            results do not depend on how a generation is cut into calls.
        tokens: [B, T] int32, T >= 1.
        lengths: [B] int32, tokens of each lane's prompt, from 1 to T, with
            padding behind them.
        memories: the dict that the model takes.
        max_new_tokens: [B] int32, 0 or more.
        temperature: [B] float32; 0 = the likeliest token.
        top_k: [B] int32; 0 = off.
        top_p: [B] float32; 1 = off.
        seed: [B] int64.
        stop_token: [B] int32; -1 = never stop.

    Returns:
        generated: [B, max(max_new_tokens)] int32, padded with -1.
        generated_lengths: [B] int32.
        memories: after `tokens` and `generated` without its last token, which
            the next call passes as `tokens`.
    """
    batch_size = tf.shape(tokens)[0]
    # The maximum over no lanes is the least int32.
    width = tf.maximum(tf.reduce_max(max_new_tokens), 0)
    generated = tf.fill([batch_size, width], -1)
    written = tf.zeros([batch_size], tf.int32)
    last = tf.gather(tokens, lengths - 1, batch_dims=1)
    # The last token is read by the ring decoder, where there is something to
    # write; it then projects a hidden memory's keys and values only once.
    writes = width > 0
    memories = read_prompt(
        model, tokens, memories, lengths - tf.cast(writes, tf.int32)
    )

    def write():
        return _write(
            model,
            last,
            memories,
            generated,
            written,
            max_new_tokens=max_new_tokens,
            stop_token=stop_token,
            draw=lambda logits, position: sample_tokens(
                logits,
                temperature,
                top_k,
                top_p,
                tf.bitcast(seed, tf.uint32),  # [B, 2]
                position,
            ),
        )

    return tf.cond(writes, write, lambda: (generated, written, memories))


def read_prompt(model, tokens, memories, lengths):
    """Feeds a prompt, a piece at a time, and computes no logits.

    Args:
        model: a TransformerXLLanguageModel with `same_length`.
        tokens: [B, T] int32.
        memories: the dict that the model takes.
        lengths: [B] int32, tokens to read of each lane, from 0 to T.

    Returns:
        The memories after them.
    """
    shapes = _memory_shapes(memories)
    lanes = tf.maximum(tf.shape(tokens, out_type=tf.int64)[0], 1)
    size = checks.MAX_SCORES_BYTES // (
        lanes * checks.bytes_of_scores(model, PROMPT_PIECE)
    )
    size = tf.cast(tf.clip_by_value(size, 1, PROMPT_PIECE), tf.int32)

    def read_piece(start, memories):
        piece = tokens[:, start : start + size]
        _, memories = model.next_logits(
            piece,
            memories,
            lengths=tf.clip_by_value(lengths - start, 0, tf.shape(piece)[1]),
        )
        return start + size, memories

    _, memories = tf.while_loop(
        lambda start, _: start < tf.reduce_max(lengths),
        read_piece,
        (tf.constant(0), memories),
        shape_invariants=(tf.TensorShape([]), shapes),
    )
    return memories


def _write(
    model, last, memories, generated, written, max_new_tokens, stop_token, draw
):
    decoder = RingDecoder(model, memories)
    columns = tf.range(tf.shape(generated)[1])[None, :]  # [1, W]

    def step(tokens, active, generated, written, state):
        logits, state = decoder.step(tokens, state, active)
        tokens = draw(logits, state[POSITION])
        # Those that write nothing were fed the last token of their prompt.
        active &= written < max_new_tokens
        here = (columns == written[:, None]) & active[:, None]
        generated = tf.where(here, tokens[:, None], generated)
        written += tf.cast(active, tf.int32)
        active &= (tokens != stop_token) & (written < max_new_tokens)
        return tokens, active, generated, written, state

    active = tf.ones_like(last, tf.bool)
    variables = (last, active, generated, written, decoder.state)
    lane = tf.TensorShape([None])
    *_, generated, written, state = tf.while_loop(
        lambda tokens, active, *_: tf.reduce_any(active),
        step,
        variables,
        shape_invariants=(
            lane,
            lane,
            tf.TensorShape([None, None]),
            lane,
            _memory_shapes(decoder.state),
        ),
    )
    return generated, written, decoder.memories(state)


def _memory_shapes(memories):
    # Shapes that a loop may not be seen to change: all but the lanes.
    return {
        name: tf.TensorShape([None, *value.shape[1:]])
        for name, value in memories.items()
    }
