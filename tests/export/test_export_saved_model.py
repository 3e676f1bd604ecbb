"""Tests of export/export_saved_model.py, as an operator runs it."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import official_lrm as lrm
from official_lrm.data import ByteTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]


def export(*arguments):
    path = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    )
    return subprocess.run(
        [sys.executable, ROOT / "export" / "export_saved_model.py", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def model():
    model = lrm.TransformerXLLanguageModel(
        vocab_size=23,
        spans=(5, 0, 11),
        hidden_size=10,
        num_heads=2,
        head_size=7,
        inner_size=17,
    )
    rng = np.random.default_rng(2)
    for weight in model.weights:
        value = rng.normal(size=weight.shape) * 0.4
        weight.assign(value + (weight.name == "gamma"))
    return model


@pytest.fixture(scope="module")
def preset(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("preset")
    model.save_to_preset(path, ByteTokenizer(23))
    return path


@pytest.fixture(scope="module")
def exports(preset, tmp_path_factory):
    """A folder with one export of other spans, and what was printed."""
    folder = tmp_path_factory.mktemp("exports") / "new"
    result = export(
        f"--model={preset}",
        f"--export_dir={folder}",
        "--version=7",
        "--spans=3,2,0",
        "--same_length",
    )
    return folder, result


def test_it_says_what_a_request_carries(exports):
    folder, result = exports
    assert result.returncode == 0, result.stderr
    assert "memory_00  [B, 3, 10] float32\n" in result.stdout
    assert "memory_01  [B, 2, 10] float32\n" in result.stdout
    assert "memory_02" not in result.stdout
    assert result.stdout.splitlines()[-1] == f"exported: {folder / '7'}"


def test_the_export_is_the_model_of_the_flags(exports, model):
    folder, _ = exports
    assert os.listdir(folder) == ["7"]
    predict = tf.saved_model.load(str(folder / "7")).signatures["predict"]
    other = model.with_spans((3, 2, 0), same_length=True)
    rng = np.random.default_rng(3)
    memories, expected = (other.initial_memories(3) for _ in range(2))
    for length in (5, 1, 13):
        tokens = rng.integers(0, 23, [3, length], dtype="int32")
        outputs = dict(predict(tokens=tf.constant(tokens), **memories))
        logits = outputs.pop("logits")
        memories = outputs
        exact, expected = other(tokens, expected)
        np.testing.assert_allclose(logits, exact, atol=1e-5)
        assert memories.keys() == expected.keys()


def test_the_tokenizer_is_beside_it(exports):
    file = exports[0] / "7" / "assets.extra" / "tokenizer.json"
    assert '"vocab_size": 23' in file.read_text(encoding="utf-8")


def test_an_existing_version_is_refused_in_one_line(exports, preset):
    folder, _ = exports
    before = sorted(os.listdir(folder / "7"))
    result = export(
        f"--model={preset}", f"--export_dir={folder}", "--version=7"
    )
    assert result.returncode == 1
    assert not result.stdout
    assert "Traceback" not in result.stderr
    # TensorFlow's C++ may say that there is no GPU.
    assert result.stderr.splitlines()[-1] == (
        "export_saved_model.py: error: version 7 exists in "
        f"{folder}; the next free one is 8."
    )
    assert os.listdir(folder) == ["7"]
    assert sorted(os.listdir(folder / "7")) == before


def test_state_format_and_dtypes_are_flags(preset, tmp_path):
    result = export(
        f"--model={preset}",
        f"--export_dir={tmp_path}",
        "--state=resident",
        "--sessions=3",
        "--memory_format=key_value",
        "--memory_dtype=int8",
        "--dtype=bfloat16",
    )
    assert result.returncode == 0, result.stderr
    assert "key_02_scale    [B, 11] float32\n" in result.stdout
    assert "resident: 3 sessions take " in result.stdout
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    outputs = signatures["session_step"](
        tokens=tf.constant([[3, 5]]),
        session_id=tf.constant([7], tf.int64),
        position=tf.constant([0]),
    )
    assert outputs["position"].numpy().tolist() == [2]
    dtypes = tf.train.list_variables(str(tmp_path / "1/variables/variables"))
    reader = tf.train.load_checkpoint(str(tmp_path / "1/variables/variables"))
    kinds = reader.get_variable_to_dtype_map()
    assert sum(kinds[name] == tf.bfloat16 for name, _ in dtypes) > 30


def test_sessions_need_resident_state(preset, tmp_path):
    result = export(
        f"--model={preset}", f"--export_dir={tmp_path}", "--sessions=3"
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "export_saved_model.py: error: --sessions needs --state=resident."
    )
