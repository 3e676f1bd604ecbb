"""Bytes of a prompt in, text on a stream out."""

import codecs
import itertools
import os
import time

import numpy as np

from official_lrm.data import load_tokenizer, tokenizer_of_model
from official_lrm.models import TransformerXLLanguageModel
from official_lrm.models.presets import CONFIG_FILE, TOKENIZER_FILE
from official_lrm.serving.export import EXTRA_FOLDER, versions
from official_lrm.serving.text_generator import TextGenerator


def open_generator(path):
    """Opens a preset or an export.

    Args:
        path: a preset; one version of an export, or the folder above it for
            its newest version.

    Returns:
        (TextGenerator, tokenizer).

    Raises:
        FileNotFoundError: if there is none of these.
        ValueError: if its files are damaged, or what the model's ids stand
            for is not known.
    """
    if os.path.isfile(os.path.join(path, CONFIG_FILE)):
        model = TransformerXLLanguageModel.from_preset(path)
        file = os.path.join(path, TOKENIZER_FILE)
        # First: the signatures take seconds.
        tokenizer = _tokenizer(file, model.vocab_size, path)
        return TextGenerator.from_model(model), tokenizer
    if not os.path.isfile(os.path.join(path, "saved_model.pb")):
        found = versions(path)
        if not found:
            raise FileNotFoundError(
                f"{path} is neither a model_dir, a preset nor an export."
            )
        path = os.path.join(path, str(max(found)))
    file = os.path.join(path, EXTRA_FOLDER, TOKENIZER_FILE)
    generator = TextGenerator.from_saved_model(path)
    return generator, _tokenizer(file, generator.vocab_size, path)


def _tokenizer(file, vocab_size, path):
    stored = load_tokenizer(file) if os.path.isfile(file) else None
    return tokenizer_of_model(stored, vocab_size, path)


def write_text(generator, tokenizer, prompt, stream, **sampling) -> float:
    """Writes a prompt and what follows it, as it is generated.

    Args:
        generator: a TextGenerator.
        tokenizer: what turns bytes into its tokens and back.
        prompt: bytes of at least one token. It is written as the model reads
            it: of words, unknown ones as `<unk>`.
        stream: text stream; bytes that are no UTF-8 are shown as U+FFFD, and
            so are ids that stand for nothing, which a model with more ids
            than its tokenizer may write.
        **sampling: arguments of `TextGenerator.stream`.

    Returns:
        Tokens written per second, the first call (which compiles) left out.

    Raises:
        ValueError: for a prompt without a token or with bytes outside the
            vocabulary.
    """
    if not prompt:
        raise ValueError("prompt must hold at least one byte; got none.")
    tokens = tokenizer.encode(prompt)
    if not tokens.size:
        raise ValueError(
            f"prompt must hold at least one {tokenizer.unit}; got none."
        )
    decoder = _Decoder(tokenizer)
    stream.write(decoder.decode(tokens))
    stream.flush()
    written, start = 0, None
    for generated in generator.stream(tokens, **sampling):
        stream.write(decoder.decode(generated))
        stream.flush()
        if start is None:
            start = time.monotonic()
        else:
            written += generated.size
    stream.write(decoder.rest() + "\n")
    stream.flush()
    if not written:
        return 0.0
    return written / (time.monotonic() - start)


class _Decoder:
    """Makes text of ids as they arrive, the same however they are cut."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._last = []

    def decode(self, ids) -> str:
        known = np.asarray(ids) < self._tokenizer.vocab_size
        text = b""
        for is_known, run in itertools.groupby(
            zip(known, ids, strict=True), lambda pair: pair[0]
        ):
            run = [index for _, index in run]
            # FF is in no UTF-8 text.
            text += self._after_last(run) if is_known else b"\xff" * len(run)
        return self._utf8.decode(text)

    def rest(self) -> str:
        """What is left of a character that was cut."""
        return self._utf8.decode(b"", final=True)

    def _after_last(self, ids) -> bytes:
        # What is between two words depends on both.
        last, self._last = self._last, ids[-1:]
        text = self._tokenizer.decode([*last, *ids])
        return text[len(self._tokenizer.decode(last)) :]
