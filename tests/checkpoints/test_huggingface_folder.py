"""Folders of Hugging Face: what is read, and what is never unpickled."""

import json
import pickle
import sys
import types

import numpy as np
import pytest
import safetensors.numpy

from official_lrm.checkpoints.huggingface_folder import (
    read_huggingface_folder,
)

TENSORS = {"a": np.arange(5, dtype="float32"), "b": np.ones([2, 3], "float16")}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "transfo-xl", "n_layer": 3})
    )
    return tmp_path


def refusal(path, error_type=ValueError):
    with pytest.raises(error_type) as caught:
        read_huggingface_folder(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


class Detonator:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def test_safetensors(folder):
    safetensors.numpy.save_file(TENSORS, folder / "model.safetensors")
    # It is preferred: what lies beside it is not touched.
    (folder / "pytorch_model.bin").write_bytes(b"no tensors")
    tensors, config, file = read_huggingface_folder(folder)
    assert config == {"model_type": "transfo-xl", "n_layer": 3}
    assert file == str(folder / "model.safetensors")
    assert tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert tensors[name].dtype == value.dtype
        np.testing.assert_array_equal(tensors[name], value)


@pytest.mark.parametrize("length", [0, 5, 40, -3])
def test_truncated_safetensors(folder, length):
    file = folder / "model.safetensors"
    safetensors.numpy.save_file(TENSORS, file)
    file.write_bytes(file.read_bytes()[:length])
    assert str(file) in refusal(folder)


def test_a_pickle_by_the_name_of_safetensors(folder):
    mark = folder / "mark"
    (folder / "model.safetensors").write_bytes(pickle.dumps(Detonator(mark)))
    assert "model.safetensors" in refusal(folder)
    assert not mark.exists()


class TestWithoutPyTorch:
    def test_a_pickle_is_not_opened(self, folder, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", None)
        mark = folder / "mark"
        file = folder / "pytorch_model.bin"
        file.write_bytes(pickle.dumps(Detonator(mark)))
        message = refusal(folder, ImportError)
        assert str(file) in message
        assert "pip install torch" in message
        assert not mark.exists()


class TestWithPyTorch:
    """With a stand-in: PyTorch is no dependency."""

    @pytest.fixture
    def torch(self, monkeypatch):
        module = types.ModuleType("torch")
        module.is_tensor = lambda value: isinstance(value, np.ndarray)
        module.calls = []
        monkeypatch.setitem(sys.modules, "torch", module)
        return module

    def test_only_its_loader_of_weights_is_called(self, folder, torch):
        def load(path, **kwargs):
            torch.calls.append((path, kwargs))
            return dict(TENSORS)

        torch.load = load
        file = folder / "pytorch_model.bin"
        file.write_bytes(b"a zip")
        tensors, _, _ = read_huggingface_folder(folder)
        assert tensors.keys() == TENSORS.keys()
        ((path, kwargs),) = torch.calls
        assert path == str(file)
        assert kwargs["weights_only"] is True

    @pytest.mark.parametrize(
        "error", [pickle.UnpicklingError, RuntimeError, OSError, EOFError]
    )
    def test_what_it_refuses_is_refused(self, folder, torch, error):
        def load(path, **kwargs):
            raise error("set weights_only to False\nand see")

        torch.load = load
        file = folder / "pytorch_model.bin"
        file.write_bytes(b"a pickle")
        message = refusal(folder)
        assert str(file) in message
        assert error.__name__ in message
        # Its text advises to load the pickle all the same.
        assert "weights_only" not in message

    @pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {3: TENSORS["a"]}])
    def test_anything_but_tensors_by_name(self, folder, torch, content):
        torch.load = lambda path, **kwargs: content
        (folder / "pytorch_model.bin").write_bytes(b"a zip")
        assert "dict of names to tensors" in refusal(folder)


class TestFiles:
    def test_no_folder(self, tmp_path):
        message = refusal(tmp_path / "none", FileNotFoundError)
        assert "is no folder" in message

    def test_a_file(self, tmp_path):
        file = tmp_path / "vocab.bin"
        file.write_bytes(pickle.dumps([1]))
        assert "is no folder" in refusal(file, FileNotFoundError)

    def test_no_config(self, folder):
        (folder / "config.json").unlink()
        assert "config.json" in refusal(folder, FileNotFoundError)

    def test_no_tensors(self, folder):
        message = refusal(folder, FileNotFoundError)
        assert "model.safetensors" in message
        assert "pytorch_model.bin" in message

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"", "is not JSON"),
            (b"{", "is not JSON"),
            (b"\xff\xfe", "is not JSON"),
            (b"[1]", "must hold a JSON object; got list"),
            (b'{"model_type": "gpt2"}', "model_type 'gpt2'"),
        ],
    )
    def test_configs_that_are_none(self, folder, content, expected):
        file = folder / "config.json"
        file.write_bytes(content)
        message = refusal(folder)
        assert str(file) in message
        assert expected in message
