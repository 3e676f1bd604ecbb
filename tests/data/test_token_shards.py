"""Tests of tokens in shards that a graph reads."""

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.data import TokenShards, write_shards


def random_tokens(size, most, seed=0):
    return np.random.default_rng(seed).integers(0, most + 1, size)


@pytest.mark.parametrize(
    ("most", "dtype"),
    [(255, "uint8"), (65_535, "uint16"), (2**31 - 1, "int32")],
)
@pytest.mark.parametrize("size", [1, 15, 16, 17, 101])
def test_taken_are_the_tokens(tmp_path, most, dtype, size):
    tokens = random_tokens(size, most)
    tokens[-1] = most
    shards = write_shards(tokens, str(tmp_path), "text", shard_bytes=64)
    assert (shards.dtype, shards.num_tokens) == (dtype, size)
    assert shards.shard_tokens == 64 // np.dtype(dtype).itemsize
    positions = np.random.default_rng(1).integers(0, size, (3, 5, 7))

    @tf.function
    def in_a_graph(positions):
        return shards.take(positions)

    for take in (in_a_graph, shards.take):
        taken = take(tf.constant(positions))
        assert taken.dtype == tf.int32
        np.testing.assert_array_equal(taken, tokens[positions])


def test_files_hold_all_bytes_in_order(tmp_path):
    tokens = random_tokens(101, 300)
    shards = write_shards(tokens, str(tmp_path), "text-train", 64)
    folder = pathlib.Path(shards.folder)
    assert folder.name.startswith("text-train-")
    names = [f"tokens-0000{i}-of-00004.bin" for i in range(4)]
    assert sorted(path.name for path in folder.iterdir()) == names
    content = b"".join((folder / name).read_bytes() for name in names)
    assert content == tokens.astype("<u2").tobytes()


def test_a_memory_mapped_text_is_not_loaded_but_the_same(tmp_path):
    tokens = random_tokens(101, 255).astype(np.uint8)
    tokens.tofile(tmp_path / "tokens.bin")
    mapped = np.memmap(tmp_path / "tokens.bin", np.uint8, mode="r")
    assert write_shards(mapped, str(tmp_path), "text", 16) == write_shards(
        tokens.tolist(), str(tmp_path), "text", 16
    )


def test_written_once_and_what_is_missing_again(tmp_path):
    tokens = random_tokens(101, 255)
    shards = write_shards(tokens, str(tmp_path), "text", 16)
    first, second = map(pathlib.Path, map(shards.file_name, range(2)))
    before = first.stat().st_mtime_ns
    content = second.read_bytes()
    second.unlink()
    assert write_shards(tokens, str(tmp_path), "text", 16) == shards
    assert first.stat().st_mtime_ns == before
    assert second.read_bytes() == content
    # Another text, or others shards, have a folder of their own.
    tokens[0] ^= 1
    other = write_shards(tokens, str(tmp_path), "text", 16)
    wider = write_shards(tokens, str(tmp_path), "text", 32)
    assert len({shards.folder, other.folder, wider.folder}) == 3


def test_only_the_shards_of_the_positions_are_read(tmp_path):
    tokens = random_tokens(101, 255)
    shards = write_shards(tokens, str(tmp_path), "text", 16)
    for shard in (0, 1, 3, 4, 6):
        os.remove(shards.file_name(shard))
    positions = [32, 47, 80, 95]
    taken = shards.take(tf.constant(positions, tf.int64))
    np.testing.assert_array_equal(taken, tokens[positions])
    with pytest.raises(tf.errors.NotFoundError, match="tokens-00003-of-00007"):
        shards.take(tf.constant([48], tf.int64))


@pytest.mark.parametrize(("shard", "size"), [(1, 15), (1, 17), (6, 16), (6, 0)])
def test_a_shard_of_another_length_is_an_error(tmp_path, shard, size):
    shards = write_shards(random_tokens(101, 255), str(tmp_path), "text", 16)
    path = pathlib.Path(shards.file_name(shard))
    path.write_bytes(bytes(size))
    expected = 5 if shard == 6 else 16
    message = (
        f"tokens-0000{shard}-of-00007.bin must have {expected} bytes; it has "
        f"{size}. Delete its folder"
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        shards.take(tf.constant([16 * shard], tf.int64))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    parent = str(tmp_path / "file" / "shards")
    message = f"cannot be written to {parent}: .*task.corpus.shard_dir"
    with pytest.raises(OSError, match=message):
        write_shards([1, 2], parent, "text")


def test_no_half_written_file_is_left(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "no space left")

    monkeypatch.setattr(tf.io.gfile, "rename", fail)
    with pytest.raises(OSError, match="no space left"):
        write_shards([1, 2], str(tmp_path), "text")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_no_token_ids_are_refused(tmp_path):
    with pytest.raises(ValueError, match="tokens must be from 0"):
        write_shards([-1], str(tmp_path), "text")
    assert isinstance(write_shards([1], str(tmp_path), "text"), TokenShards)
