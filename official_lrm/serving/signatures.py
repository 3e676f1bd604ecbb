"""The signatures of an exported model, memories in and memories out."""

import tensorflow as tf

from official_lrm.memory.state import POSITION
from official_lrm.serving.decoding import generate_tokens

#: Of one call of `generate`, whose output is as wide; more take more calls,
#: which changes nothing. Without it one request could ask for 8 GiB.
MAX_NEW_TOKENS = 2**16

# Inputs of `generate` [B] beside tokens and memories.
_SAMPLING = {
    "max_new_tokens": tf.int32,
    "temperature": tf.float32,
    "top_k": tf.int32,
    "top_p": tf.float32,
    "seed": tf.int64,
    "stop_token": tf.int32,
}


class ServingModule(tf.Module):
    """A language model as functions of flat dicts of tensors.

    | signature | in | out |
    | --- | --- | --- |
    | `serving_default` | `tokens` | `logits`, fresh memories after them |
    | `predict` | `tokens`, memories | `logits`, memories |
    | `score` | `tokens`, `targets`, memories | `log_probs`, memories |
    | `generate` | `tokens`, memories, sampling per lane | `generated`,
    `generated_lengths`, memories |
    | `tokenize` | `text` | `tokens`, `lengths` |
    | `detokenize` | `tokens`, `lengths` | `text` |

    The last two are there with a tokenizer. Memories are `memory_00` …
    [B, M_l, D] for the layers that have one, and `position` [B] int32; names,
    shapes and dtypes are the same in and out, so that a response is the next
    request. Batch and T are free. The inputs of `generate` are described in
    `decoding.generate_tokens`; it always runs with `same_length`, the others
    as the model does, and writes at most `MAX_NEW_TOKENS` in a call. Wrong
    values, shapes and numbers of lanes are refused with INVALID_ARGUMENT and
    a message that names the input.

    `text` [B] is strings, `lengths` [B] int32 the tokens of each. Behind them
    `tokenize` pads `tokens` [B, N] int32 with -1, as `generate` does: tokens
    that the others refuse, and never take for text. `detokenize` ignores what
    is behind the lengths, whatever it is, so it takes `generated` and
    `generated_lengths` as they are; tokens that the tokenizer does not have,
    if the model has more, it refuses.

    Args:
        model: a TransformerXLLanguageModel.
        tokenizer: a TextTokenizer of at most as many ids, or None.
    """

    def __init__(self, model, tokenizer=None):
        super().__init__(name="official_lrm")
        # Keras 3 layers in lists are invisible to tf.Module's tracking.
        self._raw_weights = [weight.value for weight in model.weights]
        self._model = _Untracked(model)
        self._decoder = _Untracked(
            model.with_spans(model.spans, same_length=True)
        )
        self._tokenizer = tokenizer
        # A SavedModel keeps what is an attribute of what is saved.
        self._kept = tokenizer.graph_objects() if tokenizer else []

    def signatures(self) -> dict:
        """Returns name -> concrete function of named tensors."""
        model = self._model.value
        tokens = tf.TensorSpec([None, None], tf.int32, "tokens")
        targets = tf.TensorSpec([None, None], tf.int32, "targets")
        memories = {
            name: tf.TensorSpec(spec.shape, spec.dtype, name)
            for name, spec in model.memory_specs().items()
        }
        sampling = {
            name: tf.TensorSpec([None], dtype, name)
            for name, dtype in _SAMPLING.items()
        }
        inputs = {
            "serving_default": {"tokens": tokens},
            "predict": {"tokens": tokens, **memories},
            "score": {"tokens": tokens, "targets": targets, **memories},
            "generate": {"tokens": tokens, **memories, **sampling},
        }
        functions = {
            "serving_default": self._start,
            "predict": self._predict,
            "score": self._score,
            "generate": self._generate,
        }
        if self._tokenizer:
            text = tf.TensorSpec([None], tf.string, "text")
            lengths = tf.TensorSpec([None], tf.int32, "lengths")
            inputs["tokenize"] = {"text": text}
            inputs["detokenize"] = {"tokens": tokens, "lengths": lengths}
            functions["tokenize"] = self._tokenize
            functions["detokenize"] = self._detokenize
        return {
            name: tf.function(function).get_concrete_function(**inputs[name])
            for name, function in functions.items()
        }

    def _start(self, tokens):
        memories = self._model.value.initial_memories(tf.shape(tokens)[0])
        return self._predict(tokens, **memories)

    def _predict(self, tokens, **memories):
        ids, memories = self._checked({"tokens": tokens}, memories)
        logits, memories = self._model.value(ids["tokens"], memories)
        return {"logits": logits, **memories}

    def _score(self, tokens, targets, **memories):
        ids = {"tokens": tokens, "targets": targets}
        ids, memories = self._checked(ids, memories)
        log_probs, memories = self._model.value.score(
            ids["tokens"], ids["targets"], memories
        )
        return {"log_probs": log_probs, **memories}

    def _generate(self, tokens, **inputs):
        sampling = {name: inputs.pop(name) for name in _SAMPLING}
        sampling = _after(
            [*_lanes_assertions(tokens, sampling), *_ranges(sampling)],
            sampling,
        )
        some = tf.debugging.Assert(
            tf.shape(tokens)[1] > 0,
            ["tokens must hold at least one token a lane; got none"],
        )
        ids, memories = self._checked({"tokens": tokens}, inputs, [some])
        generated, lengths, memories = generate_tokens(
            self._decoder.value, ids["tokens"], memories, **sampling
        )
        return {
            "generated": generated,
            "generated_lengths": lengths,
            **memories,
        }

    def _tokenize(self, text):
        ids = self._tokenizer.encode_tensor(text)
        return {
            "tokens": ids.to_tensor(-1),
            "lengths": tf.cast(ids.row_lengths(), tf.int32),
        }

    def _detokenize(self, tokens, lengths):
        width = tf.shape(tokens)[1]
        assertions = [
            *_lanes_assertions(tokens, {"lengths": lengths}),
            tf.debugging.Assert(
                tf.reduce_all((lengths >= 0) & (lengths <= width)),
                ["lengths must be from 0 to", width, "; got", lengths],
            ),
        ]
        values = _after(assertions, {"tokens": tokens, "lengths": lengths})
        ids = tf.RaggedTensor.from_tensor(values["tokens"], values["lengths"])
        return {"text": self._tokenizer.decode_tensor(ids)}

    def _checked(self, ids, memories, assertions=()):
        """Token ids and memories, to be read once they are found right."""
        # A gather on a GPU returns zeros for what is out of range; a client's
        # mistake must not turn into text.
        vocab_size = self._model.value.vocab_size
        tokens = ids["tokens"]
        assertions = list(assertions)
        for name, values in ids.items():
            assertions += [
                tf.debugging.assert_equal(
                    tf.shape(values),
                    tf.shape(tokens),
                    f"{name} must have the shape of tokens",
                ),
                tf.debugging.Assert(
                    tf.reduce_all((values >= 0) & (values < vocab_size)),
                    [
                        f"{name} must be from 0 to {vocab_size - 1}; got "
                        "values from",
                        tf.reduce_min(values),
                        "to",
                        tf.reduce_max(values),
                    ],
                ),
            ]
        assertions += _lanes_assertions(tokens, memories)
        assertions.append(
            tf.debugging.assert_non_negative(
                memories[POSITION], "position must not be negative"
            )
        )
        # A runtime does not compare what it is fed with a signature's shapes.
        specs = self._model.value.memory_specs()
        memories = {
            name: tf.ensure_shape(value, specs[name].shape)
            for name, value in memories.items()
        }
        return _after(assertions, ids), _after(assertions, memories)


def _ranges(sampling):
    """Assertions on the values of `generate`'s inputs."""
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


def _lanes_assertions(tokens, values):
    """Assertions that all have a row for each lane: nothing is broadcast."""
    return [
        tf.debugging.assert_equal(
            tf.shape(value)[0],
            tf.shape(tokens)[0],
            f"{name} must have as many lanes as tokens",
        )
        for name, value in values.items()
    ]


def _after(assertions, values):
    # Without it an operation that the wrong input breaks may be faster than
    # the assertion, and its message then hides what was wrong.
    with tf.control_dependencies(assertions):
        return {name: tf.identity(value) for name, value in values.items()}


class _Untracked:
    """Keeps an object out of tf.Module's tracking."""

    def __init__(self, value):
        self.value = value
