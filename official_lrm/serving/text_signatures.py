"""Signatures of text: strings in, strings out, the tokenizer in the graph."""

import tensorflow as tf

from official_lrm.serving import checks


class TextSignatures:
    """Functions of strings for an exported model with a tokenizer.

    | signature | in | out |
    | --- | --- | --- |
    | `tokenize` | `text` | `tokens`, `lengths` |
    | `detokenize` | `tokens`, `lengths` | `text` |
    | `generate_text` | `text`, sampling per lane | `generated_text`,
    `generated_lengths` |

    `text` [B] is strings, `lengths` [B] int32 the tokens of each. Behind them
    `tokenize` pads `tokens` [B, N] int32 with -1, as `generate` does: tokens
    that the others refuse, and never take for text. `detokenize` ignores what
    is behind the lengths, whatever it is, so it takes `generated` and
    `generated_lengths` as they are; tokens that the tokenizer does not have,
    if the model has more, it refuses.

    `generate_text` begins with fresh memories, reads texts of any lengths and
    gives what follows them, without the texts. Ids that the tokenizer does not
    have are left out of it. `generated_lengths` counts tokens.

    Args:
        model: a TransformerXLLanguageModel with `same_length`.
        generate: `decoding.generate_tokens` of the model.
        tokenizer: a TextTokenizer of at most as many ids.
    """

    def __init__(self, model, generate, tokenizer):
        self._model = model
        self._generate = generate
        self._tokenizer = tokenizer

    def signatures(self, sampling) -> dict:
        """Returns name -> (function, its inputs' specs by name).

        Args:
            sampling: specs of `generate`'s inputs beside tokens and memories.
        """
        text = {"text": tf.TensorSpec([None], tf.string, "text")}
        tokens = {
            "tokens": tf.TensorSpec([None, None], tf.int32, "tokens"),
            "lengths": tf.TensorSpec([None], tf.int32, "lengths"),
        }
        return {
            "tokenize": (self._tokenize, text),
            "detokenize": (self._detokenize, tokens),
            "generate_text": (self._generate_text, {**text, **sampling}),
        }

    def _tokenize(self, text):
        tokens, lengths = self._encode(text, -1)
        return {"tokens": tokens, "lengths": lengths}

    def _detokenize(self, tokens, lengths):
        width = tf.shape(tokens)[1]
        assertions = [
            *checks.same_lanes(tokens, {"lengths": lengths}),
            tf.debugging.Assert(
                tf.reduce_all((lengths >= 0) & (lengths <= width)),
                ["lengths must be from 0 to", width, "; got", lengths],
            ),
        ]
        values = checks.after(
            assertions, {"tokens": tokens, "lengths": lengths}
        )
        ids = tf.RaggedTensor.from_tensor(values["tokens"], values["lengths"])
        return {"text": self._tokenizer.decode_tensor(ids)}

    def _generate_text(self, text, **sampling):
        assertions = [
            *checks.same_lanes(text, sampling),
            *checks.check_sampling(sampling),
            # A lane's memories are as large as a request of `generate` has
            # them, whatever is sent here.
            *checks.response_fits(
                self._model,
                text[:, None],
                bytes_per_lane=checks.generated_bytes(sampling),
                name="text",
            ),
        ]
        sampling = checks.after(assertions, sampling)
        text = checks.after(assertions, {"text": text})["text"]
        tokens, lengths = self._encode(text, 0)
        some = tf.debugging.Assert(
            tf.reduce_all(lengths > 0),
            [
                f"text must hold at least one {self._tokenizer.unit} a lane; "
                "got numbers of them:",
                lengths,
            ],
        )
        tokens = checks.after([some], {"tokens": tokens})["tokens"]
        generated, written, _ = self._generate(
            tokens,
            lengths,
            self._model.initial_memories(tf.shape(tokens)[0]),
            sampling,
        )
        ids = tf.RaggedTensor.from_tensor(generated, written)
        ids = tf.ragged.boolean_mask(ids, ids < self._tokenizer.vocab_size)
        # What is between two words depends on both.
        last = tf.RaggedTensor.from_tensor(
            tf.gather(tokens, lengths - 1, batch_dims=1)[:, None]
        )
        before = self._tokenizer.decode_tensor(last)
        whole = self._tokenizer.decode_tensor(tf.concat([last, ids], axis=1))
        begin = tf.strings.length(before)
        return {
            "generated_text": tf.strings.substr(
                whole, begin, tf.strings.length(whole) - begin
            ),
            "generated_lengths": written,
        }

    def _encode(self, text, padding):
        # [B, N], as wide as the longest lane, and [B].
        ids = self._tokenizer.encode_tensor(text)
        shape = ids.bounding_shape(out_type=tf.int64)
        fits = tf.debugging.Assert(
            4 * shape[0] * shape[1] <= checks.MAX_MESSAGE_BYTES,
            [
                "text must be few enough for tokens of "
                f"{checks.MAX_MESSAGE_BYTES} bytes, all lanes as wide as the "
                "longest; got lanes, tokens:",
                shape,
            ],
        )
        with tf.control_dependencies([fits]):
            tokens = tf.cast(ids.to_tensor(padding), tf.int32)
        return tokens, tf.cast(ids.row_lengths(), tf.int32)
