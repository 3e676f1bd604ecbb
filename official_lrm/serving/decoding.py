"""Generation in the graph, one token at a time."""

import tensorflow as tf

from official_lrm.memory.state import POSITION
from official_lrm.models.sampling import sample_tokens


def generate_tokens(
    model,
    tokens,
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
    seed_words = tf.bitcast(seed, tf.uint32)  # [B, 2]
    # The maximum over no lanes is the least int32.
    width = tf.maximum(tf.reduce_max(max_new_tokens), 0)
    columns = tf.range(width)[None, :]  # [1, W]

    def draw(logits, memories, active, generated, lengths):
        drawn = sample_tokens(
            logits, temperature, top_k, top_p, seed_words, memories[POSITION]
        )
        here = (columns == lengths[:, None]) & active[:, None]
        generated = tf.where(here, drawn[:, None], generated)
        lengths += tf.cast(active, tf.int32)
        active &= (drawn != stop_token) & (lengths < max_new_tokens)
        return drawn, active, generated, lengths

    def step(drawn, active, generated, lengths, memories):
        logits, fed = model.next_logits(drawn[:, None], memories)
        memories = {
            name: tf.where(
                tf.reshape(active, [-1] + [1] * (value.shape.rank - 1)),
                fed[name],
                value,
            )
            for name, value in memories.items()
        }
        drawn, active, generated, lengths = draw(
            logits, memories, active, generated, lengths
        )
        return drawn, active, generated, lengths, memories

    logits, memories = model.next_logits(tokens, memories)
    batch_size = tf.shape(tokens)[0]
    generated = tf.fill([batch_size, width], -1)
    lengths = tf.zeros([batch_size], tf.int32)
    state = draw(logits, memories, max_new_tokens > 0, generated, lengths)
    # Shapes that the loop may not be seen to change.
    memory_shapes = {
        name: tf.TensorShape([None, *value.shape[1:]])
        for name, value in memories.items()
    }
    lane = tf.TensorShape([None])
    _, _, generated, lengths, memories = tf.while_loop(
        lambda drawn, active, *_: tf.reduce_any(active),
        step,
        (*state, memories),
        shape_invariants=(
            lane,
            lane,
            tf.TensorShape([None, None]),
            lane,
            memory_shapes,
        ),
    )
    return generated, lengths, memories
