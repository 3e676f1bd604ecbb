"""Folders that Hugging Face's `save_pretrained` wrote."""

import json
import os

import safetensors

CONFIG_FILE = "config.json"
SAFETENSORS_FILE = "model.safetensors"
TORCH_FILE = "pytorch_model.bin"

_MODEL_TYPE = "transfo-xl"


def read_huggingface_folder(path):
    """Reads the tensors and the config of a folder.

    `model.safetensors` is preferred. `pytorch_model.bin` is a pickle: it is
    read by PyTorch's loader of plain tensors (`weights_only=True`), which
    refuses everything else, and only where PyTorch is installed.

    Args:
        path: the folder, with `config.json` beside one of the two.

    Returns:
        tensors: dict of name to array or PyTorch tensor.
        config: dict.
        file: path of the file that the tensors are from.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: naming the file that cannot be read.
        ImportError: if PyTorch is needed and not installed.
    """
    if not os.path.isdir(path):
        raise FileNotFoundError(
            f"{path} is no folder; it must be one with {CONFIG_FILE} and "
            f"{SAFETENSORS_FILE} or {TORCH_FILE}."
        )
    config = read_json_object(os.path.join(path, CONFIG_FILE))
    model_type = config.get("model_type", _MODEL_TYPE)
    if model_type != _MODEL_TYPE:
        raise ValueError(
            f"{os.path.join(path, CONFIG_FILE)} has model_type "
            f"{model_type!r}; only {_MODEL_TYPE!r} can be converted."
        )
    for name, read in (
        (SAFETENSORS_FILE, _read_safetensors),
        (TORCH_FILE, _read_torch),
    ):
        file = os.path.join(path, name)
        if os.path.isfile(file):
            return read(file), config, file
    raise FileNotFoundError(
        f"{path} holds neither {SAFETENSORS_FILE} nor {TORCH_FILE}."
    )


def read_json_object(path) -> dict:
    """Reads a JSON file that holds an object.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it holds anything else.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no config at {path}.")
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except ValueError as error:  # Of JSON or of UTF-8.
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} must hold a JSON object; got {type(content).__name__}."
        )
    return content


def _read_safetensors(file):
    try:
        with safetensors.safe_open(file, framework="np") as opened:
            names = opened.keys()
            return {name: opened.get_tensor(name) for name in names}
    except (safetensors.SafetensorError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is no safetensors file that can be read: {error}"
        ) from None


def _read_torch(file):
    try:
        import torch
    except ModuleNotFoundError:
        raise ImportError(
            f"{file} needs PyTorch to be read (pip install torch); a folder "
            f"with {SAFETENSORS_FILE} does not."
        ) from None
    try:
        state_dict = torch.load(file, map_location="cpu", weights_only=True)
    # PyTorch's own errors are of many types, the pickle module's among them.
    # Their texts tell how to load the pickle all the same: not repeated.
    except Exception as error:
        raise ValueError(
            f"{file} is refused: it is damaged or holds more than tensors "
            f"({type(error).__name__})."
        ) from None
    if not isinstance(state_dict, dict) or not all(
        isinstance(name, str) and torch.is_tensor(tensor)
        for name, tensor in state_dict.items()
    ):
        raise ValueError(
            f"{file} must hold a dict of names to tensors; got "
            f"{type(state_dict).__name__}."
        )
    return state_dict
