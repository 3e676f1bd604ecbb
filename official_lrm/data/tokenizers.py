"""The tokenizers of a release, made from what was stored of them.

All are TextTokenizers, which describes what they do; the "type" of their
`get_config` is one of TOKENIZER_TYPES.
"""

import functools
import json
import reprlib

from official_lrm.data.byte_tokenizer import ByteTokenizer
from official_lrm.data.sentencepiece_tokenizer import SentencePieceTokenizer
from official_lrm.data.symbol_tokenizer import SymbolTokenizer
from official_lrm.data.word_tokenizer import WordTokenizer

# type -> function from a config of that type to the tokenizer
_FROM_CONFIG = {
    "bytes": lambda config: ByteTokenizer(config.get("vocab_size")),
    "symbols": lambda config: SymbolTokenizer(
        config.get("symbols"), config.get("skip_newlines", False)
    ),
    "words": lambda config: WordTokenizer(config.get("words")),
    "sentencepiece": lambda config: SentencePieceTokenizer.from_base64(
        config.get("model")
    ),
}

#: What `task.corpus.tokenizer` and the "type" of a config may be.
TOKENIZER_TYPES = tuple(_FROM_CONFIG)


def tokenizer_from_config(config):
    """Builds a tokenizer from its `get_config` dict.

    Args:
        config: a dict with the key "type".

    Returns:
        A TextTokenizer.

    Raises:
        ValueError: the dict describes no tokenizer of this release.
    """
    kind = config.get("type") if isinstance(config, dict) else None
    if kind not in TOKENIZER_TYPES:
        allowed = ", ".join(repr(name) for name in TOKENIZER_TYPES)
        raise ValueError(
            f"tokenizer config must be a dict with a type of {allowed}; got "
            f"{reprlib.repr(config)}"
        )
    return _FROM_CONFIG[kind](config)


def load_tokenizer(path, open_file=None):
    """Reads a tokenizer from the JSON file that a run, preset or export holds.

    Args:
        path: the file.
        open_file: function from a path to a text stream; None = Python's
            `open`, which reads local files only.

    Returns:
        A TextTokenizer.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged.
    """
    open_file = open_file or functools.partial(open, encoding="utf-8")
    with open_file(path) as stream:
        try:
            config = json.loads(stream.read())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
    try:
        return tokenizer_from_config(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def tokenizer_of_model(tokenizer, vocab_size, source):
    """The tokenizer of a model, once it was found to be one.

    Args:
        tokenizer: what was stored with the model; None = nothing, which
            means bytes if there are as many ids as byte values.
        vocab_size: int, the model's number of ids.
        source: where the model came from, for errors.

    Returns:
        A TextTokenizer with at most `vocab_size` ids.

    Raises:
        ValueError: nothing was stored and what the ids stand for is not
            known, or the tokenizer has more ids than the model.
    """
    if tokenizer is None:
        tokenizer = ByteTokenizer()
        # A guess here would be a figure of nothing: converted weights have
        # ids of symbols or words.
        if vocab_size != tokenizer.vocab_size:
            raise ValueError(
                f"{source} holds no tokenizer (tokenizer.json), and its "
                f"{vocab_size} ids are not the {tokenizer.vocab_size} bytes: "
                "what they stand for is not known"
            )
    if tokenizer.vocab_size > vocab_size:
        raise ValueError(
            f"{source} holds a tokenizer of {tokenizer.vocab_size} ids, more "
            f"than the {vocab_size} of its model"
        )
    return tokenizer
