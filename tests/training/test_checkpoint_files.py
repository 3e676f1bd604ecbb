"""Which checkpoints a folder holds, and which are removed."""

import os

import pytest
import tensorflow as tf

from official_lrm.training.checkpoint_files import (
    checkpoint_path,
    checkpoint_step,
    checkpoint_steps,
    newest_checkpoint,
    prune_checkpoints,
    remove_checkpoint,
    write_state,
)

SUFFIXES = (
    ".index",
    ".data-00000-of-00001",
    ".memories-00000-of-00002.index",
    ".memories-00000-of-00002.data-00000-of-00001",
)


@pytest.fixture
def add(tmp_path):
    """Returns add(step, size, suffixes) that writes a checkpoint's files."""

    def write(step, size=100, suffixes=SUFFIXES):
        for suffix in suffixes:
            (tmp_path / f"ckpt-{step}{suffix}").write_bytes(bytes(size))

    return write


def test_a_checkpoint_is_what_has_an_index(tmp_path, add):
    add(7)
    add(11)
    add(13, suffixes=SUFFIXES[1:])
    (tmp_path / "ckpt-17_temp").mkdir()
    (tmp_path / "best").mkdir()

    assert checkpoint_steps(str(tmp_path)) == [7, 11]
    newest = newest_checkpoint(str(tmp_path))
    assert newest == checkpoint_path(str(tmp_path), 11)
    assert checkpoint_step(newest) == 11


def test_a_folder_without_any(tmp_path):
    assert newest_checkpoint(str(tmp_path)) is None
    assert checkpoint_steps(str(tmp_path / "missing")) == []


@pytest.mark.parametrize(
    ("max_to_keep", "budget", "left"),
    [
        (9, None, [3, 5, 7, 11]),
        (3, None, [5, 7, 11]),
        (1, None, [11]),
        (9, 1200, [5, 7, 11]),
        (9, 1199, [7, 11]),
        (9, 1, [11]),
        (2, 1200, [7, 11]),
    ],
)
def test_old_ones_go_by_number_and_by_size(
    tmp_path, add, max_to_keep, budget, left
):
    for step in (3, 5, 7, 11):
        add(step)  # 400 bytes each.

    kept = prune_checkpoints(str(tmp_path), 11, max_to_keep, budget)

    assert kept == checkpoint_steps(str(tmp_path)) == left
    assert len(os.listdir(tmp_path)) == 4 * len(left)


def test_leftovers_and_a_torn_future_go(tmp_path, add):
    """Given a run that went back behind a torn checkpoint, and what killed
    saves left, when it prunes, then only what is good is left."""
    add(5)
    add(7)
    add(13)
    add(6, suffixes=SUFFIXES[1:])
    (tmp_path / "ckpt-8_temp").mkdir()
    (tmp_path / "ckpt-8_temp" / "part").write_bytes(b"1")
    (tmp_path / "params.yaml").write_text("kept")

    assert prune_checkpoints(str(tmp_path), 7, 2) == [5, 7]

    names = {name.split(".")[0] for name in os.listdir(tmp_path)}
    assert names == {"ckpt-5", "ckpt-7", "params"}


def test_the_state_is_what_tensorflow_reads(tmp_path, add):
    add(5)
    add(7)
    write_state(str(tmp_path), [5, 7])
    assert tf.train.latest_checkpoint(tmp_path) == str(tmp_path / "ckpt-7")


def test_removing_what_is_not_there(tmp_path, add):
    add(5)
    remove_checkpoint(str(tmp_path), 7)
    assert checkpoint_steps(str(tmp_path)) == [5]
