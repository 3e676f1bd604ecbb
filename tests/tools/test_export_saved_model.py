"""Tests of export/export_saved_model.py on a run of tools/train.py."""

import os

import numpy as np
import pytest
import tensorflow as tf

import official_lrm as lrm

EXPORT = "export/export_saved_model.py"


def test_a_run_is_exported(exported, trained):
    assert exported.status == 0
    assert not exported.stderr
    assert os.listdir(exported.path) == ["1"]
    assert exported.stdout.endswith(f"exported: {exported.path / '1'}\n")
    start = tf.saved_model.load(str(exported.path / "1")).signatures[
        "serving_default"
    ]
    tokens = np.array([[5, 3, 250], [7, 0, 11]], "int32")
    model = lrm.TransformerXLLanguageModel.from_preset(trained.preset)
    np.testing.assert_allclose(
        start(tokens=tf.constant(tokens))["logits"],
        model(tokens)[0],
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--spans=5,7"], ("3 layers", "[5, 7]")),
        (["--spans=5,7,x"], ("--spans", "'5,7,x'")),
        (["--version=0"], ("version", "0", "positive 64-bit integer")),
        (["--version=one"], ("--version=one",)),
    ],
    ids=str,
)
def test_wrong_flags(refusal, trained, tmp_path, flags, words):
    folder = tmp_path / "exports"
    line = refusal(
        EXPORT, f"--model={trained.path}", f"--export_dir={folder}", *flags
    )
    for word in words:
        assert word in line
    assert not folder.exists()


@pytest.mark.parametrize("given", ["model", "export_dir"])
def test_missing_flags(refusal, given, tmp_path):
    (missing,) = {"model", "export_dir"} - {given}
    line = refusal(EXPORT, f"--{given}={tmp_path}")
    assert f"--{missing} must be given" in line


def test_a_folder_that_cannot_be(refusal, trained, text_file):
    line = refusal(
        EXPORT, f"--model={trained.path}", f"--export_dir={text_file}"
    )
    assert str(text_file) in line


def test_a_truncated_checkpoint(refusal, damaged_run, tmp_path):
    line = refusal(
        EXPORT, f"--model={damaged_run}", f"--export_dir={tmp_path / 'new'}"
    )
    assert str(damaged_run / "ckpt-4") in line
    assert not (tmp_path / "new").exists()


def test_a_run_that_has_not_saved_yet(refusal, run_copy, tmp_path):
    for name in os.listdir(run_copy):
        if name.startswith(("ckpt", "checkpoint")):
            os.remove(run_copy / name)
    line = refusal(
        EXPORT, f"--model={run_copy}", f"--export_dir={tmp_path / 'new'}"
    )
    assert f"{run_copy} holds no checkpoint yet" in line
