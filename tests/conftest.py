"""What tests of several folders share: golden files, and TPUs that are not."""

import functools
import json
import pathlib
import types

import numpy as np
import pytest

TESTDATA = pathlib.Path(__file__).parent / "testdata"


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """Keeps the cache of tokens out of the user's own, in processes too."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@functools.cache
def read_golden(name):
    with np.load(TESTDATA / f"{name}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    return types.SimpleNamespace(
        config=json.loads(str(arrays.pop("config"))),
        state_dict={
            key.removeprefix("param:"): value
            for key, value in arrays.items()
            if key.startswith("param:")
        },
        arrays=arrays,
    )


@pytest.fixture
def golden():
    """Reads a golden file by name: `config`, `state_dict` and `arrays`.

    Dicts may be changed, arrays must not be.
    """

    def read(name):
        content = read_golden(name)
        return types.SimpleNamespace(
            config=dict(content.config),
            state_dict=dict(content.state_dict),
            arrays=dict(content.arrays),
        )

    return read


class _TPUStrategy:
    """Stands in for one that runs on TPUs."""


@pytest.fixture
def for_tpus(monkeypatch):
    """What is traced is traced as under a TPUStrategy."""
    import tensorflow as tf

    monkeypatch.setattr(tf.distribute, "TPUStrategy", _TPUStrategy)
    monkeypatch.setattr(tf.distribute, "get_strategy", _TPUStrategy)
