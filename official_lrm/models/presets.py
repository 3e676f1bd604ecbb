"""Presets: a model as a folder of readable files.

`config.json`, `model.weights.h5` and, with a tokenizer, `tokenizer.json`.
Nothing in a preset is ever unpickled.
"""

import json
import os
import textwrap

import keras

from official_lrm.models.arguments import check_same_shapes, spans_of_layers

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.weights.h5"
TOKENIZER_FILE = "tokenizer.json"

FORMAT_VERSION = 1


def save_preset(model, path, tokenizer=None):
    """Writes a model as a preset.

    Args:
        model: a TransformerXLLanguageModel.
        path: the folder; made if missing.
        tokenizer: an object whose `get_config` gives a JSON-serializable dict,
            or None.
    """
    os.makedirs(path, exist_ok=True)
    model_config = model.get_config()
    # The dtype policy is a matter of where the model runs.
    del model_config["dtype"], model_config["name"]
    config = {"format_version": FORMAT_VERSION, "model": model_config}
    model.save_weights(os.path.join(path, WEIGHTS_FILE))
    if tokenizer is not None:
        _write_json(os.path.join(path, TOKENIZER_FILE), tokenizer.get_config())
    # Last: a folder without it is no preset, so a crash leaves no half one.
    _write_json(os.path.join(path, CONFIG_FILE), config)


def load_preset(model_class, path, spans=None, dtype=None):
    """Builds the model of a preset.

    Args:
        model_class: TransformerXLLanguageModel.
        path: the folder.
        spans: other memory spans than the preset's, for as many layers.
        dtype: a Keras dtype policy or its name; None = the global one.

    Returns:
        A TransformerXLLanguageModel.

    Raises:
        FileNotFoundError: if the folder holds no preset.
        ValueError: naming what in the preset cannot be read.
    """
    config = read_preset_config(path)
    if spans is not None:
        num_layers = len(config["spans"]["lengths"])
        spans = spans_of_layers(spans, num_layers, path)
        config["spans"] = spans.get_config()
    if dtype is not None:
        dtype = keras.dtype_policies.get(dtype)
    try:
        model = model_class.from_config({**config, "dtype": dtype})
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(
            f"{os.path.join(path, CONFIG_FILE)} does not describe a model: "
            f"{error}"
        ) from None
    load_preset_weights(model, path)
    return model


def read_preset_config(path) -> dict:
    """Reads and checks `config.json` of a preset.

    Args:
        path: the folder.

    Returns:
        The model's config.

    Raises:
        FileNotFoundError: if the folder holds no preset.
        ValueError: if the file is damaged or of a newer version.
    """
    file = os.path.join(path, CONFIG_FILE)
    if not os.path.isfile(file):
        raise FileNotFoundError(
            f"no preset at {path}: a preset is a folder with {CONFIG_FILE} "
            f"and {WEIGHTS_FILE}."
        )
    try:
        with open(file, encoding="utf-8") as stream:
            config = json.load(stream)
        version = config["format_version"]
        model_config = config["model"]
        model_config["spans"]["lengths"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is no preset's config: {type(error).__name__}: {error}"
        ) from None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{file} has format version {version!r}; this release of "
            f"official_lrm reads version {FORMAT_VERSION}. Upgrade "
            "official_lrm to read it."
        )
    return model_config


def load_preset_weights(model, path):
    """Reads the weights of a preset into a model of its sizes.

    Args:
        model: a TransformerXLLanguageModel.
        path: the folder.

    Raises:
        FileNotFoundError: if there are no weights.
        ValueError: if the file is damaged or does not fit the model.
    """
    config, ours = read_preset_config(path), model.get_config()
    layers = len(config["spans"]["lengths"])
    if layers != len(model.spans):
        raise ValueError(
            f"preset {path} has {layers} layers; the model has "
            f"{len(model.spans)}."
        )
    # Keras reads what it finds and leaves out what the model has no place
    # for.
    check_same_shapes(f"preset {path}", config, ours)
    file = os.path.join(path, WEIGHTS_FILE)
    if not os.path.isfile(file):
        raise FileNotFoundError(f"no weights at {file}.")
    try:
        model.load_weights(file)
    except (OSError, ValueError, KeyError) as error:
        # Keras lists every layer of the model: thousands of characters.
        reason = textwrap.shorten(str(error), 400, placeholder=" ...")
        raise ValueError(f"{file} cannot be loaded: {reason}") from None


def _write_json(path, content):
    # The file takes its name when it is whole.
    temporary = f"{path}.tmp"
    with open(temporary, "w", encoding="utf-8", newline="\n") as stream:
        json.dump(content, stream, indent=2)
        stream.write("\n")
    os.replace(temporary, path)
