"""Loading the model that an experiment or a preset holds."""

import json
import os

import keras
import tensorflow as tf

from official_lrm.configs.settings import resolve
from official_lrm.data import ByteTokenizer, load_tokenizer
from official_lrm.models import TransformerXLLanguageModel
from official_lrm.models.arguments import spans_of_layers
from official_lrm.models.presets import CONFIG_FILE, TOKENIZER_FILE
from official_lrm.training.checkpoint_contents import (
    check_variables,
    restore,
    variables_by_path,
)
from official_lrm.training.checkpoint_files import newest_checkpoint
from official_lrm.training.params import read_params
from official_lrm.training.run_files import write_file


def is_preset(path) -> bool:
    """Whether a folder is a preset (and not a model_dir)."""
    return os.path.isfile(os.path.join(path, CONFIG_FILE))


def load_model(path, spans=None, dtype=None, checkpoint=None):
    """Loads the model of a preset or of a model_dir's newest checkpoint.

    Args:
        path: the folder.
        spans: other memory spans than its own, for as many layers.
        dtype: a Keras dtype policy or its name; None = the run's own, and
            the global one for a preset.
        checkpoint: prefix of another checkpoint of the model_dir; None = the
            newest.

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
    checkpoint = checkpoint or newest_checkpoint(path)
    if checkpoint is None:
        raise FileNotFoundError(f"{path} holds no checkpoint yet.")
    if spans is not None:
        num_layers = len(arguments["spans"])
        arguments["spans"] = spans_of_layers(spans, num_layers, path)
    model = TransformerXLLanguageModel(**arguments, dtype=settings.dtype_policy)
    variables = variables_by_path(model.variables)
    check_variables(checkpoint, {"model": variables})
    # There is an optimizer in it as well.
    restore(tf.train.Checkpoint(model=variables), checkpoint).expect_partial()
    return model if dtype is None else _cast(model, dtype)


def _cast(model, dtype):
    # A checkpoint's variables are read in the dtypes that they were saved in.
    config = {**model.get_config(), "dtype": keras.dtype_policies.get(dtype)}
    copy = type(model).from_config(config)
    for ours, theirs in zip(copy.weights, model.weights, strict=True):
        ours.assign(theirs)
    return copy


def read_tokenizer(path):
    """The tokenizer of a preset or of a model_dir.

    Args:
        path: the folder.

    Returns:
        A tokenizer; None for a preset that was saved without one.

    Raises:
        FileNotFoundError: if the folder is neither, or a model_dir lacks it.
        ValueError: if its file is damaged.
    """
    file = os.path.join(path, TOKENIZER_FILE)
    if is_preset(path):
        return load_tokenizer(file) if os.path.isfile(file) else None
    if tf.io.gfile.exists(file):
        return load_tokenizer(file, tf.io.gfile.GFile)
    task = read_params(path).task
    if task.corpus.tokenizer != "bytes":
        raise FileNotFoundError(
            f"{path} holds no {TOKENIZER_FILE}, so which "
            f"{task.corpus.tokenizer} its ids stand for is not known."
        )
    # Runs of releases that knew bytes only wrote no file.
    return ByteTokenizer(task.model.vocab_size)


def write_tokenizer(tokenizer, model_dir):
    """Writes the tokenizer of a run as `tokenizer.json`.

    Args:
        tokenizer: the tokenizer.
        model_dir: the folder; made if missing.

    Raises:
        ValueError: if the folder cannot be written.
    """
    text = json.dumps(tokenizer.get_config()) + "\n"
    write_file(model_dir, TOKENIZER_FILE, text)


def check_tokenizer(tokenizer, model_dir):
    """Refuses to go on with weights that were trained with other ids.

    Args:
        tokenizer: that of the run at hand.
        model_dir: the folder with a checkpoint and its tokenizer.

    Raises:
        ValueError: naming how the two differ.
        FileNotFoundError: as `read_tokenizer`.
    """
    ours, theirs = tokenizer.get_config(), read_tokenizer(model_dir)
    saved = theirs.get_config()
    if saved == ours:
        return
    sizes = (theirs.vocab_size, tokenizer.vocab_size)
    if saved["type"] == ours["type"] and sizes[0] == sizes[1]:
        texts = (
            (index, theirs.decode([index]), tokenizer.decode([index]))
            for index in range(sizes[0])
        )
        difference = next(
            (
                f"id {index} was {old!r} and is {new!r}"
                for index, old, new in texts
                if old != new
            ),
            "the ids are the same, but not how a text is cut",
        )
    else:
        difference = (
            f"it was {sizes[0]} {saved['type']} and is {sizes[1]} "
            f"{ours['type']}"
        )
    raise ValueError(
        f"{model_dir} was trained with another vocabulary "
        f"({TOKENIZER_FILE}): {difference}. Give another --model_dir."
    )
