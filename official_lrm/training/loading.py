"""Loading the model that an experiment or a preset holds."""

import os

import tensorflow as tf

from official_lrm.configs.settings import resolve
from official_lrm.data import ByteTokenizer, load_tokenizer
from official_lrm.memory.spans import MemorySpans
from official_lrm.models import TransformerXLLanguageModel
from official_lrm.models.presets import CONFIG_FILE, TOKENIZER_FILE
from official_lrm.training.checkpointing import (
    check_variables,
    restore,
    variables_by_path,
)
from official_lrm.training.params import read_params


def is_preset(path) -> bool:
    """Whether a folder is a preset (and not a model_dir)."""
    return os.path.isfile(os.path.join(path, CONFIG_FILE))


def load_model(path, spans=None, dtype=None):
    """Loads the model of a preset or of a model_dir's newest checkpoint.

    Args:
        path: the folder.
        spans: other memory spans than its own, for as many layers.
        dtype: a Keras dtype policy or its name; None = the run's own, and
            the global one for a preset.

    Returns:
        A TransformerXLLanguageModel.

    Raises:
        FileNotFoundError: if there is neither.
        ValueError: if its files cannot be read, or the spans do not fit.
    """
    if is_preset(path):
        return TransformerXLLanguageModel.from_preset(
            path, spans=spans, dtype=dtype
        )
    settings = resolve(read_params(path))
    arguments = dict(settings.model)
    checkpoint = tf.train.latest_checkpoint(path)
    if checkpoint is None:
        raise FileNotFoundError(f"{path} holds no checkpoint yet.")
    if spans is not None:
        spans, own = MemorySpans(spans), arguments["spans"]
        if len(spans) != len(own):
            raise ValueError(
                f"spans must name {len(own)} layers, as {path} has; got "
                f"{len(spans)}: {list(spans)}."
            )
        arguments["spans"] = spans
    model = TransformerXLLanguageModel(
        **arguments, dtype=dtype or settings.dtype_policy
    )
    variables = variables_by_path(model.variables)
    check_variables(checkpoint, {"model": variables})
    # There is an optimizer in it as well.
    restore(tf.train.Checkpoint(model=variables), checkpoint).expect_partial()
    return model


def read_tokenizer(path):
    """The tokenizer of a preset or of a model_dir.

    Args:
        path: the folder.

    Returns:
        A tokenizer; None for a preset that was saved without one.
    """
    if not is_preset(path):
        return ByteTokenizer(read_params(path).task.model.vocab_size)
    file = os.path.join(path, TOKENIZER_FILE)
    return load_tokenizer(file) if os.path.isfile(file) else None
