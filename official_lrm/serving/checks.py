"""What a signature refuses, with INVALID_ARGUMENT and the input's name.

A runtime compares neither shapes nor values of what it is fed with the
signature. Inputs are used behind the assertions only: otherwise an operation
that a wrong one breaks may be faster, and its message then hides what was
wrong.
"""

import numpy as np
import tensorflow as tf

from official_lrm.memory.state import POSITION

#: Of one call of `generate`, whose output is as wide; more take more calls,
#: which changes nothing. Without it one request could ask for 8 GiB.
MAX_NEW_TOKENS = 2**16

#: Protobuf's limit on a message. A request of a few bytes must not make a
#: response that cannot be sent, nor take the server's memory for it.
MAX_MESSAGE_BYTES = 2**31 - 1

#: The same for a layer's attention scores [N, B, T, K].
MAX_SCORES_BYTES = 2**31 - 1


def check_shapes(inputs, specs):
    """Checks the inputs of a signature against its specs.

    Args:
        inputs: name -> tensor.
        specs: name -> TensorSpec.

    Returns:
        The inputs, checked.
    """
    return after(
        [_has_shape(name, x, specs[name].shape) for name, x in inputs.items()],
        inputs,
    )


def check_segment(model, ids, memories, lengths=None, assertions=()):
    """Checks what a model is called with.

    Args:
        model: the TransformerXLLanguageModel.
        ids: name -> [B, T] int32; "tokens" is among them.
        memories: name -> tensor; None where the client sends none.
        lengths: [B] int32, or None.
        assertions: more operations to run before.

    Returns:
        (ids, memories, lengths), checked.
    """
    tokens = ids["tokens"]
    assertions = list(assertions)
    for name, values in ids.items():
        assertions += [
            tf.debugging.assert_equal(
                tf.shape(values),
                tf.shape(tokens),
                f"{name} must have the shape of tokens",
            ),
            in_range(name, values, 0, model.vocab_size - 1),
        ]
    if lengths is not None:
        assertions += same_lanes(tokens, {"lengths": lengths})
        assertions.append(in_range("lengths", lengths, 0, tf.shape(tokens)[1]))
    if memories is not None:
        assertions += _check_memories(tokens, memories)
    ids = after(assertions, ids)
    if memories is not None:
        memories = after(assertions, memories)
    if lengths is not None:
        lengths = after(assertions, {"lengths": lengths})["lengths"]
    return ids, memories, lengths


def response_fits(
    model,
    tokens,
    bytes_per_token=0,
    bytes_per_lane=0,
    carries=True,
    name="tokens",
):
    """Asserts that a response fits into a message, and what it takes to memory.

    Args:
        model: the TransformerXLLanguageModel.
        tokens: [B, T].
        bytes_per_token: of the outputs beside memories, or of the logits that
            they are made of.
        bytes_per_lane: of outputs that T says nothing of.
        carries: whether the memories are among the outputs.
        name: of the input that has the lanes.

    Returns:
        A list of assertions.
    """
    lanes, length = tf.unstack(tf.shape(tokens, out_type=tf.int64))
    bytes_per_lane = tf.cast(bytes_per_lane, tf.int64)
    if carries:
        bytes_per_lane += state_bytes(model)
    size = lanes * (bytes_per_lane + length * bytes_per_token)
    scores = lanes * length * bytes_of_scores(model, length)
    return [
        tf.debugging.Assert(
            size <= MAX_MESSAGE_BYTES,
            [
                f"{name} must be few enough for a response of "
                f"{MAX_MESSAGE_BYTES} bytes, a message's limit; got lanes,"
                " tokens:",
                tf.shape(tokens),
                "for a response of bytes:",
                size,
            ],
        ),
        tf.debugging.Assert(
            scores <= MAX_SCORES_BYTES,
            [
                f"{name} must be few enough for attention scores of "
                f"{MAX_SCORES_BYTES} bytes (send them in segments); got lanes,"
                " tokens:",
                tf.shape(tokens),
                "for scores of bytes:",
                scores,
            ],
        ),
    ]


def bytes_of_scores(model, length):
    """Bytes of a token's attention scores, in a layer of the longest memory.

    Args:
        model: the TransformerXLLanguageModel.
        length: T, of the segment.
    """
    width = 8 if model.compute_dtype == "float64" else 4
    return model.backbone.num_heads * (max(model.spans) + length) * width


def generated_bytes(sampling):
    """Bytes of a lane of `generated`, as wide as the longest, and its length.

    Args:
        sampling: name -> [B].
    """
    # The maximum over no lanes is the least int32.
    width = tf.maximum(tf.reduce_max(sampling["max_new_tokens"]), 0)
    return 4 * (tf.cast(width, tf.int64) + 1)


def state_bytes(model) -> int:
    """Bytes of a lane's memories, position included."""
    return sum(
        int(np.prod(spec.shape[1:], dtype=np.int64))
        * tf.as_dtype(spec.dtype).size
        for spec in model.memory_specs().values()
    )


def check_sampling(sampling):
    """Assertions on the values of `generate`'s inputs.

    Args:
        sampling: name -> [B].
    """
    count = sampling["max_new_tokens"]
    temperature, top_p = sampling["temperature"], sampling["top_p"]
    return [
        tf.debugging.Assert(
            tf.reduce_all((count >= 0) & (count <= MAX_NEW_TOKENS)),
            [f"max_new_tokens must be from 0 to {MAX_NEW_TOKENS}; got", count],
        ),
        tf.debugging.Assert(
            tf.reduce_all((temperature >= 0) & (temperature < float("inf"))),
            ["temperature must be finite and not negative; got", temperature],
        ),
        tf.debugging.assert_non_negative(
            sampling["top_k"], "top_k must not be negative"
        ),
        tf.debugging.Assert(
            tf.reduce_all((top_p > 0) & (top_p <= 1)),
            ["top_p must be above 0 and at most 1; got", top_p],
        ),
    ]


def in_range(name, values, least, most):
    """Asserts that all values are from `least` to `most`."""
    limits = [f"{name} must be from {least} to {most}; got values from"]
    if tf.is_tensor(most):
        limits = [f"{name} must be from {least} to", most, "; got values from"]
    return tf.debugging.Assert(
        tf.reduce_all((values >= least) & (values <= most)),
        [*limits, tf.reduce_min(values), "to", tf.reduce_max(values)],
    )


def same_lanes(tokens, values):
    """Assertions that all have a row for each lane: nothing is broadcast.

    Args:
        tokens: [B, ...].
        values: name -> tensor.
    """
    return [
        tf.debugging.assert_equal(
            tf.shape(value)[0],
            tf.shape(tokens)[0],
            f"{name} must have as many lanes as tokens",
        )
        for name, value in values.items()
    ]


def some_tokens(tokens):
    """Asserts that there is a token to go on from."""
    return tf.debugging.Assert(
        tf.shape(tokens)[1] > 0,
        ["tokens must hold at least one token a lane; got none"],
    )


def after(assertions, values):
    """The values, once the assertions hold."""
    with tf.control_dependencies(assertions):
        return {name: tf.identity(value) for name, value in values.items()}


def _check_memories(tokens, memories):
    # Assertions on memories.
    assertions = same_lanes(tokens, memories)
    assertions.append(
        tf.debugging.assert_non_negative(
            memories[POSITION], "position must not be negative"
        )
    )
    for name, value in memories.items():
        if value.dtype.is_floating:
            assertions.append(
                tf.debugging.check_numerics(value, f"{name} must be finite")
            )
    return assertions


def _has_shape(name, value, shape):
    # A tensor of another rank than its static one, which only a server lets
    # through, is taken for what it should be wherever a graph was optimized.
    # Of two branches that differ in rank nothing is known.
    unknown = tf.cond(
        tf.size(value) >= 0,
        lambda: value,
        lambda: (
            tf.zeros([1] * (len(shape) + 1), value.dtype)
            if value.dtype != tf.string
            else tf.fill([1] * (len(shape) + 1), "")
        ),
    )
    actual = tf.shape(unknown)
    wanted = tf.constant([-1 if size is None else size for size in shape])
    sizes = tf.concat([actual, tf.zeros_like(wanted)], 0)[: len(shape)]
    fits = (tf.size(actual) == len(shape)) & tf.reduce_all(
        (wanted < 0) | (sizes == wanted)
    )
    text = ", ".join("any" if size is None else str(size) for size in shape)
    return tf.debugging.Assert(
        fits, [f"{name} must have the shape [{text}]; got", actual]
    )
