"""Presets beside a run, on disks that are full or remote."""

import os
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf

import official_lrm as lrm
from official_lrm.data import ByteTokenizer
from official_lrm.data.whole_files import temporary_path
from official_lrm.training.run_files import UnwritableError, write_preset

FILES = ["config.json", "model.weights.h5", "tokenizer.json"]


@pytest.fixture(scope="module")
def model():
    return lrm.TransformerXLLanguageModel(
        vocab_size=11,
        spans=[3],
        hidden_size=8,
        num_heads=2,
        head_size=4,
        inner_size=8,
    )


@pytest.mark.parametrize("remote", [False, True])
def test_a_folder_gets_a_preset_and_nothing_else(tmp_path, model, remote):
    folder = "ram://run_files/best" if remote else str(tmp_path / "best")
    for _ in range(2):
        write_preset(model, ByteTokenizer(11), folder)
    assert sorted(tf.io.gfile.listdir(folder)) == FILES


@pytest.mark.parametrize("what", ["space", "scratch", "rename"])
def test_a_full_disk_is_one_line_and_leaves_the_old_preset(
    tmp_path, model, monkeypatch, what
):
    """Given a disk that is full before or while a preset is written, when it
    is, then the error names its folder, and the old one is all there is."""
    folder = tmp_path / "best"
    write_preset(model, ByteTokenizer(11), str(folder))
    before = {name: (folder / name).read_bytes() for name in FILES}

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if what == "space":
            patch.setattr(
                shutil, "disk_usage", lambda _: types.SimpleNamespace(free=99)
            )
        elif what == "scratch":
            patch.setattr(os, "mkdir", fail)
        else:
            patch.setattr(os, "replace", fail)
        with pytest.raises(UnwritableError) as error:
            write_preset(model, ByteTokenizer(11), str(folder))

    reason = "No space left on device"
    if what == "space":
        needed = sum(np.array(v).nbytes for v in model.variables)
        reason += f", {needed:,} bytes are needed and 99 are free"
    assert str(error.value) == f"{folder} cannot be written: {reason}."
    assert {
        name: (folder / name).read_bytes() for name in os.listdir(folder)
    } == before


def test_what_killed_runs_left_is_removed_when_it_is_old(tmp_path, model):
    """Given what a run left that was killed hours ago, and what another
    writes now, when a preset is written, then the former is gone."""
    old, young = (
        temporary_path(str(tmp_path / "model.weights.h5")) for _ in range(2)
    )
    scratch = temporary_path(str(tmp_path / "preset"))
    os.mkdir(scratch)
    own = str(tmp_path / "notes.tmp")
    for path in (old, young, own, os.path.join(scratch, "config.json")):
        with open(path, "w") as stream:
            stream.write("half")
    for path in (old, own, scratch):
        os.utime(path, (1e9, 1e9))

    write_preset(model, ByteTokenizer(11), str(tmp_path))

    assert sorted(os.listdir(tmp_path)) == sorted(
        [*FILES, "notes.tmp", os.path.basename(young)]
    )
