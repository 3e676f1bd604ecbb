"""From the files of a published checkpoint to a preset."""

import os

from official_lrm.checkpoints.huggingface_folder import (
    read_huggingface_folder,
    read_json_object,
)
from official_lrm.checkpoints.source_config import read_source_config
from official_lrm.checkpoints.transfo_xl import convert_transfo_xl
from official_lrm.checkpoints.transformer_xl_tf1 import (
    convert_transformer_xl_tf1,
)
from official_lrm.data import SymbolTokenizer, WordTokenizer
from official_lrm.memory.spans import MemorySpans
from official_lrm.models.presets import CONFIG_FILE

SOURCES = ("huggingface", "tf1")

#: What the lines of a vocabulary file may be -> the tokenizer that reads them.
VOCABULARIES = {"words": WordTokenizer, "symbols": SymbolTokenizer}


def convert_checkpoint(
    source,
    checkpoint,
    output=None,
    config=None,
    vocabulary=None,
    tokenizer="words",
    spans=None,
    arrangement=None,
    attend_to_empty=True,
):
    """Converts a checkpoint, prints what became of its tensors, saves a preset.

    Args:
        source: "huggingface" or "tf1".
        checkpoint: the folder with `config.json`, or the prefix of a
            TensorFlow checkpoint.
        output: folder of the preset to write; None = write nothing.
        config: path of a JSON file with the config; for "tf1" only.
        vocabulary: path of a text file with one token a line in the order of
            the ids, of which the preset's tokenizer is made; or None.
        tokenizer: what the lines are: "words", or "symbols", the numbers of
            bytes, as in the vocabulary of enwik8.
        spans: memory lengths, one per layer, or None.
        arrangement: keyword arguments of MemorySpans.arrange beside
            num_layers, or None; not with `spans`.
        attend_to_empty: as for `from_transfo_xl`.

    Returns:
        A TransformerXLLanguageModel.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: naming what is wrong in which file.
        ImportError: if PyTorch is needed and not installed.
    """
    if source not in SOURCES:
        raise ValueError(
            f"source must be {' or '.join(SOURCES)}; got {source!r}."
        )
    if tokenizer not in VOCABULARIES:
        raise ValueError(
            f"tokenizer must be {' or '.join(VOCABULARIES)}; got {tokenizer!r}."
        )
    if spans is not None and arrangement is not None:
        raise ValueError("give spans or num_long, not both.")
    # Before minutes of work, not after them.
    if output and os.path.exists(os.path.join(output, CONFIG_FILE)):
        raise ValueError(
            f"output must be a new folder; {output} holds a {CONFIG_FILE}."
        )
    if source == "huggingface":
        if config:
            raise ValueError(
                f"config goes with source tf1; {checkpoint} has its own."
            )
        tensors, fields, file = read_huggingface_folder(checkpoint)
    else:
        if not config:
            raise ValueError(
                "source tf1 needs config, a JSON file with the run's flags "
                "(n_token, n_layer, d_model, …)."
            )
        fields, file = read_json_object(config), checkpoint
    if arrangement is not None:
        num_layers = read_source_config(fields, True).num_layers
        spans = MemorySpans.arrange(num_layers, **arrangement)
    if source == "huggingface":
        model, uses = convert_transfo_xl(
            tensors, fields, spans, attend_to_empty, what=file
        )
    else:
        model, uses = convert_transformer_xl_tf1(
            file, fields, spans, attend_to_empty
        )
    made = None
    if vocabulary:
        made = VOCABULARIES[tokenizer].from_vocabulary_file(vocabulary)
        if made.vocab_size != model.vocab_size:
            raise ValueError(
                f"{vocabulary} must hold {model.vocab_size:,} tokens, as the "
                f"model does; got {made.vocab_size:,}."
            )
    _print_uses(file, uses)
    print(f"model: {model.count_params():,} parameters")
    print(model.spans.diagram())
    if output:
        model.save_to_preset(output, made)
        print(f"wrote {output}")
    return model


def _print_uses(file, uses):
    counts = {"used": 0, "the same": 0, "skipped": 0}
    for name, use in uses.items():
        print(f"  {name}: {use}")
        kind = next(kind for kind in counts if use.startswith(kind))
        counts[kind] += 1
    print(
        f"{file}: {len(uses):,} tensors: {counts['used']:,} used, "
        f"{counts['the same']:,} the same under another name, "
        f"{counts['skipped']:,} skipped"
    )
