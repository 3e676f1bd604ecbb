"""Files appear whole or not at all."""

import os

import pytest
import tensorflow as tf

from official_lrm.data.whole_files import (
    is_temporary,
    temporary_path,
    written_whole,
)


def _write(path, text):
    with tf.io.gfile.GFile(path, "w") as stream:
        stream.write(text)


@pytest.mark.parametrize("gfile", [None, tf.io.gfile], ids=["local", "any"])
@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_what_fails_leaves_the_old_file_and_nothing_else(
    tmp_path, gfile, error
):
    path = str(tmp_path / "a.json")
    with written_whole(path, gfile) as temporary:
        _write(temporary, "old")
    with (
        pytest.raises(type(error)),
        written_whole(path, gfile) as temporary,
    ):
        _write(temporary, "ne")
        raise error
    assert os.listdir(tmp_path) == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


def test_a_failure_before_anything_was_written_is_the_one_that_is_told(
    tmp_path,
):
    path = str(tmp_path / "none" / "a.json")
    with (
        pytest.raises(FileNotFoundError, match="none"),
        written_whole(path) as temporary,
        open(temporary, "w"),
    ):
        pass


def test_any_file_system():
    path = "ram://whole_files/a.json"
    for text in ("first", "second"):
        with written_whole(path, tf.io.gfile) as temporary:
            _write(temporary, text)
        with tf.io.gfile.GFile(path) as stream:
            assert stream.read() == text
    assert tf.io.gfile.listdir("ram://whole_files") == ["a.json"]


def test_temporary_names_are_known_again():
    assert is_temporary(os.path.basename(temporary_path("a/model.weights.h5")))
    assert temporary_path("a") != temporary_path("a")
    for name in ("model.weights.h5", "notes.tmp", "config.json.tmp"):
        assert not is_temporary(name)
