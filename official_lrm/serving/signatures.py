"""The signatures of an exported model, memories in and memories out."""

import tensorflow as tf

from official_lrm.serving import checks
from official_lrm.serving.decoding import generate_tokens
from official_lrm.serving.resident import SessionStore
from official_lrm.serving.text_signatures import TextSignatures

#: Tokens that `predict_top_k` returns, where the vocabulary has as many.
TOP_TOKENS = 20

# Logits that it computes at once.
_TOP_PIECE = 2**22

# Inputs of `generate` [B] beside tokens and memories.
SAMPLING = {
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
    | `predict_ragged` | `tokens`, `lengths`, memories | the same |
    | `predict_top_k` | `tokens`, memories | `top_tokens`, `top_log_probs`,
    memories |
    | `score` | `tokens`, `targets`, memories | `log_probs`, memories |
    | `generate` | `tokens`, memories, sampling per lane | `generated`,
    `generated_lengths`, memories |

    With a tokenizer also `tokenize`, `detokenize` and `generate_text`, see
    `TextSignatures`; with sessions also `session_step`,
    `session_step_ragged`, `session_generate` and `session_end`, see
    `SessionStore`.

    Memories are `memory_00` … [B, M_l, D] for the layers that have one (or
    what the model's `memory_format` says), and `position` [B] int32; names,
    shapes and dtypes are the same in and out, so that a response is the next
    request. Batch and T are free. `lengths` [B] says how many tokens of each
    lane's row are text, the rest is padding on the right; memories come out as
    if each had been fed alone, logits at padding are undefined.
    `top_log_probs` [B, T, K] float32 are those of the K likeliest tokens, in
    falling order. The inputs of `generate` are described in
    `decoding.generate_tokens`; it always runs with `same_length`, the others
    as the model does, and writes at most `MAX_NEW_TOKENS` in a call. Wrong
    values, shapes and numbers of lanes are refused with INVALID_ARGUMENT and
    a message that names the input, and so is what would need more than
    protobuf's 2 GiB for a response.

    Args:
        model: a TransformerXLLanguageModel.
        tokenizer: a TextTokenizer of at most as many ids, or None.
        num_sessions: sessions that the server keeps the memories of; 0 = all
            state is carried by the client.
    """

    def __init__(self, model, tokenizer=None, num_sessions=0):
        super().__init__(name="official_lrm")
        # Keras 3 layers in lists are invisible to tf.Module's tracking.
        self._raw_weights = [weight.value for weight in model.weights]
        decoder = model.with_spans(model.spans, same_length=True)
        self._model, self._decoder = _Untracked(model), _Untracked(decoder)
        self._specs = _specs(model)
        # Signatures share what is large in their graphs.
        segment = tf.function(
            lambda tokens, lengths, memories: model.hidden_states(
                tokens, memories, lengths=lengths
            ),
            autograph=False,
        )
        write = tf.function(
            lambda tokens, lengths, memories, sampling: generate_tokens(
                decoder, tokens, lengths, memories, **sampling
            ),
            autograph=False,
            input_signature=[
                *self._specs["tokens"].values(),
                *self._specs["lengths"].values(),
                self._specs["memories"],
                self._specs["sampling"],
            ],
        )
        self._segment, self._write = _Untracked(segment), _Untracked(write)
        self._text = _Untracked(
            TextSignatures(decoder, write, tokenizer) if tokenizer else None
        )
        # A SavedModel keeps what is an attribute of what is saved.
        self._kept = tokenizer.graph_objects() if tokenizer else []
        self._store = (
            SessionStore(model, num_sessions) if num_sessions else None
        )

    def signatures(self, names=None) -> dict:
        """Traces the signatures.

        Args:
            names: which; None = all that there are.

        Returns:
            name -> concrete function of named tensors.
        """
        specs = self._specs
        tokens, lengths = specs["tokens"], specs["lengths"]
        memories, sampling = specs["memories"], specs["sampling"]
        session = specs["session"]
        signatures = {
            "serving_default": (self._start, tokens),
            "predict": (self._predict, {**tokens, **memories}),
            "predict_ragged": (
                self._predict_ragged,
                {**tokens, **lengths, **memories},
            ),
            "predict_top_k": (self._top_k, {**tokens, **memories}),
            "score": (
                self._score,
                {**tokens, **specs["targets"], **memories},
            ),
            "generate": (self._generate, {**tokens, **memories, **sampling}),
        }
        if self._text.value:
            signatures |= self._text.value.signatures(sampling)
        if self._store:
            signatures |= {
                "session_step": (self._session_step, {**tokens, **session}),
                "session_step_ragged": (
                    self._session_step_ragged,
                    {**tokens, **lengths, **session},
                ),
                "session_generate": (
                    self._session_generate,
                    {**tokens, **session, **sampling},
                ),
                "session_end": (
                    self._session_end,
                    {"session_id": session["session_id"]},
                ),
            }
        return {
            name: _traced(function, inputs)
            for name, (function, inputs) in signatures.items()
            if names is None or name in names
        }

    def _start(self, tokens):
        fits = self._logits_fit(tokens)
        tokens = checks.after(fits, {"tokens": tokens})["tokens"]
        memories = self._model.value.initial_memories(tf.shape(tokens)[0])
        return self._predict(tokens, **memories)

    def _predict(self, tokens, **memories):
        return self._predict_ragged(tokens, None, **memories)

    def _predict_ragged(self, tokens, lengths, **memories):
        ids, memories, lengths = checks.check_segment(
            self._model.value,
            {"tokens": tokens},
            memories,
            lengths,
            self._logits_fit(tokens),
        )
        hidden, memories = self._segment.value(ids["tokens"], lengths, memories)
        return {"logits": self._softmax(hidden), **memories}

    def _top_k(self, tokens, **memories):
        model = self._model.value
        count = min(TOP_TOKENS, model.vocab_size)
        ids, memories, _ = checks.check_segment(
            model,
            {"tokens": tokens},
            memories,
            assertions=checks.response_fits(model, tokens, 8 * count),
        )
        hidden, memories = self._segment.value(ids["tokens"], None, memories)
        log_probs, top_tokens = _top_tokens(
            self._softmax, hidden, count, model.vocab_size
        )
        return {
            "top_tokens": top_tokens,
            "top_log_probs": log_probs,
            **memories,
        }

    def _score(self, tokens, targets, **memories):
        ids, memories, _ = checks.check_segment(
            self._model.value,
            {"tokens": tokens, "targets": targets},
            memories,
            assertions=checks.response_fits(
                self._model.value, tokens, self._score_bytes()
            ),
        )
        hidden, memories = self._segment.value(ids["tokens"], None, memories)
        log_probs = self._softmax(hidden, ids["targets"])
        return {"log_probs": log_probs, **memories}

    def _generate(self, tokens, **inputs):
        tokens, sampling = self._checked_sampling(tokens, inputs)
        # Of the prompt only a piece is computed at once.
        fits = checks.response_fits(
            self._decoder.value,
            tokens[:, :1],
            bytes_per_lane=checks.generated_bytes(sampling),
        )
        ids, memories, _ = checks.check_segment(
            self._decoder.value, {"tokens": tokens}, inputs, assertions=fits
        )
        outputs, memories = self._written(ids["tokens"], memories, sampling)
        return {**outputs, **memories}

    def _session_step(self, tokens, session_id, position):
        return self._session_step_ragged(tokens, None, session_id, position)

    def _session_step_ragged(self, tokens, lengths, session_id, position):
        model = self._model.value
        ids, _, lengths = checks.check_segment(
            model,
            {"tokens": tokens},
            None,
            lengths,
            self._logits_fit(tokens, carries=False),
        )

        def step(memories):
            hidden, memories = self._segment.value(
                ids["tokens"], lengths, memories
            )
            return {"logits": self._softmax(hidden)}, memories

        return self._store.run(session_id, position, ids["tokens"], step)

    def _session_generate(self, tokens, session_id, position, **sampling):
        tokens, sampling = self._checked_sampling(tokens, sampling)
        ids, _, _ = checks.check_segment(
            self._decoder.value, {"tokens": tokens}, None
        )
        return self._store.run(
            session_id,
            position,
            ids["tokens"],
            lambda memories: self._written(ids["tokens"], memories, sampling),
        )

    def _session_end(self, session_id):
        return {"ended": self._store.end(session_id)}

    def _written(self, tokens, memories, sampling):
        batch_size, length = tf.unstack(tf.shape(tokens))
        generated, lengths, memories = self._write.value(
            tokens, tf.fill([batch_size], length), memories, sampling
        )
        outputs = {"generated": generated, "generated_lengths": lengths}
        return outputs, memories

    def _softmax(self, hidden, targets=None):
        model = self._model.value
        return model.softmax(
            hidden, embedding=model.backbone.embedding, targets=targets
        )

    def _checked_sampling(self, tokens, inputs):
        # Takes the inputs of SAMPLING out of the others.
        sampling = {name: inputs.pop(name) for name in SAMPLING}
        assertions = [
            checks.some_tokens(tokens),
            *checks.same_lanes(tokens, sampling),
            *checks.check_sampling(sampling),
        ]
        checked = checks.after(assertions, {"tokens": tokens, **sampling})
        return checked.pop("tokens"), checked

    def _score_bytes(self):
        # Logits exist, though they are not sent, unless there are cutoffs.
        model = self._model.value
        return 4 if model.softmax.cutoffs else 4 * model.vocab_size

    def _logits_fit(self, tokens, carries=True):
        model = self._model.value
        return checks.response_fits(
            model, tokens, 4 * model.vocab_size, carries=carries
        )


def _specs(model):
    # Inputs of the signatures, by what they are.
    ids = tf.TensorSpec([None, None], tf.int32)
    lanes = tf.TensorSpec([None], tf.int32)
    groups = {
        "tokens": {"tokens": ids},
        "targets": {"targets": ids},
        "lengths": {"lengths": lanes},
        "session": {
            "session_id": tf.TensorSpec([None], tf.int64),
            "position": lanes,
        },
        "memories": {
            name: tf.TensorSpec(spec.shape, spec.dtype)
            for name, spec in model.memory_specs().items()
        },
        "sampling": {
            name: tf.TensorSpec([None], dtype)
            for name, dtype in SAMPLING.items()
        },
    }
    return {
        group: {
            name: tf.TensorSpec(spec.shape, spec.dtype, name)
            for name, spec in specs.items()
        }
        for group, specs in groups.items()
    }


def _traced(function, specs):
    def checked(**inputs):
        return function(**checks.check_shapes(inputs, specs))

    return tf.function(checked, autograph=False).get_concrete_function(**specs)


def _top_tokens(softmax, hidden, count, vocab_size):
    # A piece of the segment at a time: log-probabilities of 512 tokens over
    # 267,735 words would be 0.5 GiB.
    lanes = tf.maximum(tf.shape(hidden)[0], 1)
    piece = tf.maximum(1, _TOP_PIECE // vocab_size // lanes)

    def add(start, log_probs, tokens):
        logits = softmax(hidden[:, start : start + piece])
        values, indices = tf.math.top_k(tf.nn.log_softmax(logits), count)
        return (
            start + piece,
            tf.concat([log_probs, values], axis=1),
            tf.concat([tokens, indices], axis=1),
        )

    shape = tf.TensorShape([None, None, count])
    batch_size, length, _ = tf.unstack(tf.shape(hidden))
    _, log_probs, tokens = tf.while_loop(
        lambda start, *_: start < length,
        add,
        (
            tf.constant(0),
            tf.zeros([batch_size, 0, count]),
            tf.zeros([batch_size, 0, count], tf.int32),
        ),
        shape_invariants=(tf.TensorShape([]), shape, shape),
    )
    return log_probs, tokens


class _Untracked:
    """Keeps an object out of tf.Module's tracking, and of the SavedModel."""

    def __init__(self, value):
        self.value = value
