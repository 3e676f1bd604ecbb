"""How fast a long text is scored, by the length of its segments."""

import statistics
import time

import keras
import tensorflow as tf

import official_lrm as lrm

SEGMENT_LENGTHS = (512, 1024, 2048, 4096, 8192)


def rows(sizes, span, num_tokens, repeats, dtype):
    """Tokens/s of one lane at each segment length; they take turns.

    Args:
        sizes: of the model, as TransformerXLLanguageModel's arguments.
        span: memory length of its 6 layers.
        num_tokens: of the text, as many whole segments as fit.
        repeats: times that the text is scored.
        dtype: Keras dtype policy.

    Yields:
        Lines of text.
    """
    keras.utils.set_random_seed(1)
    model = lrm.TransformerXLLanguageModel(
        spans=[span] * 6,
        **sizes,
        same_length=True,
        memory_format="key_value",  # As nothing is learned.
        dtype=dtype,
    )
    calls = {length: _traced(model, length) for length in SEGMENT_LENGTHS}
    seconds = {length: [] for length in SEGMENT_LENGTHS}
    for repeat in range(repeats + 1):
        for length in SEGMENT_LENGTHS:
            # The first one warms up, and needs no more than two segments.
            steps = num_tokens // length if repeat else 2
            elapsed = _score(*calls[length], steps)
            if repeat:
                seconds[length].append(elapsed / (steps * length))
    yield f"{'T':>6} {'tokens/s':>9} {'spread':>13}  beside T={length}"
    last = statistics.median(seconds[length])
    for length, each in seconds.items():
        median = statistics.median(each)
        spread = f"{1 / max(each):,.0f}-{1 / min(each):,.0f}"
        yield f"{length:6} {1 / median:9,.0f} {spread:>13} {last / median:6.2f}"


def _traced(model, length):
    tokens = tf.random.stateless_uniform(
        [1, length], (1, 2), 0, model.vocab_size, tf.int32
    )
    memories = model.initial_memories(1)
    positions = model.project_positions(length)

    @tf.function
    def score(tokens, memories, positions):
        return model.score(
            tokens, tokens, memories, projected_positions=positions
        )

    inputs = tokens, memories, positions
    return score.get_concrete_function(*inputs), inputs


def _score(score, inputs, steps):
    tokens, memories, positions = inputs
    start = time.perf_counter()
    for _ in range(steps):
        log_probs, memories = score(tokens, memories, positions)
    log_probs.numpy()
    return time.perf_counter() - start
