"""Text through the `generate` signature, memory handed from call to call."""

import os

import numpy as np
import tensorflow as tf

from official_lrm.data import load_tokenizer
from official_lrm.models.presets import TOKENIZER_FILE
from official_lrm.serving.checks import MAX_NEW_TOKENS
from official_lrm.serving.export import EXTRA_FOLDER
from official_lrm.serving.signatures import ServingModule


class TextGenerator:
    """Writes tokens with an exported model or a model in the process.

    ```python
    generator = TextGenerator.from_saved_model("export/1")
    for tokens in generator.stream(prompt, max_new_tokens=200):
        ...
    ```

    Args:
        generate: concrete function of the `generate` signature.
        owner: what must live as long as `generate` does.
        vocab_size: the model's number of ids; None = not known.
    """

    def __init__(self, generate, owner=None, vocab_size=None):
        self.vocab_size = vocab_size
        self._generate = generate
        self._owner = owner
        _, specs = generate.structured_input_signature
        # What goes in and comes out is the state.
        self._memory_specs = {
            name: spec
            for name, spec in specs.items()
            if name in generate.structured_outputs
        }

    @classmethod
    def from_saved_model(cls, path):
        """Loads a SavedModel.

        Args:
            path: the folder of one version.

        Raises:
            FileNotFoundError: if it holds no SavedModel.
            ValueError: if it cannot be loaded or lacks a signature.
            ImportError: if its tokenizer needs what is not installed.
        """
        if not os.path.isfile(os.path.join(path, "saved_model.pb")):
            raise FileNotFoundError(f"no SavedModel at {path}.")
        file = os.path.join(path, EXTRA_FOLDER, TOKENIZER_FILE)
        if os.path.isfile(file):
            # TensorFlow loads only operations that it knows, and learns those
            # of a tokenizer when that makes its own.
            load_tokenizer(file).graph_objects()
        try:
            loaded = tf.saved_model.load(path)
        except (tf.errors.OpError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"SavedModel {path} cannot be loaded: {reason}"
            ) from None
        for name in ("generate", "predict"):
            if name not in loaded.signatures:
                raise ValueError(
                    f"SavedModel {path} has no signature `{name}`; it has "
                    f"{', '.join(loaded.signatures)}."
                )
        outputs = loaded.signatures["predict"].structured_outputs
        vocab_size = outputs["logits"].shape[-1]
        return cls(loaded.signatures["generate"], loaded, vocab_size)

    @classmethod
    def from_model(cls, model):
        """Wraps a TransformerXLLanguageModel."""
        module = ServingModule(model)
        generate = module.signatures(["generate"])["generate"]
        return cls(generate, module, model.vocab_size)

    def stream(
        self,
        prompt,
        max_new_tokens,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        seed=0,
        stop_token=-1,
        tokens_per_call=16,
        prompt_tokens_per_call=512,
    ):
        """Generates one lane, call after call.

        Args:
            prompt: 1-D integer tokens, at least one.
            max_new_tokens: how many to write at most.
            temperature: 0 = the likeliest token.
            top_k: keep so many; 0 = all.
            top_p: keep so much probability; 1 = all.
            seed: of the noise, int64.
            stop_token: stop after this token; -1 = never.
            tokens_per_call: tokens that one call generates.
            prompt_tokens_per_call: tokens of the prompt that one call reads.

        Yields:
            1-D int32 arrays of new tokens.

        Raises:
            ValueError: for an empty prompt or a call of no tokens.
        """
        for name, value in (
            ("tokens_per_call", tokens_per_call),
            ("prompt_tokens_per_call", prompt_tokens_per_call),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}.")
        tokens_per_call = min(tokens_per_call, MAX_NEW_TOKENS)
        prompt = np.asarray(prompt).astype(np.int32)
        if not prompt.size:
            raise ValueError("prompt must hold at least one token; got none.")
        sampling = {
            "temperature": tf.constant([temperature], tf.float32),
            "top_k": tf.constant([top_k], tf.int32),
            "top_p": tf.constant([top_p], tf.float32),
            "seed": tf.constant([seed], tf.int64),
            "stop_token": tf.constant([stop_token], tf.int32),
        }
        memories = {
            name: tf.zeros([1, *spec.shape[1:]], spec.dtype)
            for name, spec in self._memory_specs.items()
        }

        def call(tokens, count):
            outputs = dict(
                self._generate(
                    tokens=tf.constant(tokens[None], tf.int32),
                    max_new_tokens=tf.constant([count], tf.int32),
                    **sampling,
                    **memories,
                )
            )
            length = int(outputs.pop("generated_lengths")[0])
            generated = outputs.pop("generated").numpy()[0, :length]
            return generated, outputs

        # All but the last token of the prompt, which the first call passes.
        read = 0
        while prompt.size - read > prompt_tokens_per_call:
            chunk = prompt[read : read + prompt_tokens_per_call]
            _, memories = call(chunk, 0)
            read += chunk.size
        tokens, written = prompt[read:], 0
        while written < max_new_tokens:
            count = min(tokens_per_call, max_new_tokens - written)
            generated, memories = call(tokens, count)
            yield generated
            written += generated.size
            if generated.size < count or generated[-1] == stop_token:
                return
            tokens = generated[-1:]
