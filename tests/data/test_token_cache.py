"""Tests of splits as token ids on disk."""

import functools
import json
import logging
import os
import shutil
import threading

import numpy as np
import pytest

from official_lrm.data import (
    ByteTokenizer,
    Corpus,
    Piece,
    SymbolTokenizer,
    learn_tokenizer,
    load_corpus,
    tokenize_split,
)
from official_lrm.data.token_cache import default_cache_dir

TEXT = b"to be\nor not\nto be\n" * 11


@pytest.fixture
def corpus():
    return Corpus.from_text("hamlet", TEXT)


@pytest.fixture
def counted():
    """A corpus that counts how often it is read, and its reads."""
    reads = []

    def read_part(split):
        reads.append(split)
        yield from (Piece(b"one\n", True), Piece(b"two\n", False))
        yield from (Piece(b"", True), Piece(b"three\n", True))

    return Corpus("counted", ("train",), "f" * 64, "", read_part), reads


def folders(path):
    return sorted(os.listdir(path))


class TestTokenizeSplit:
    @pytest.mark.parametrize("split", ["train", "validation", "test", "all"])
    def test_it_is_the_encoded_text(self, corpus, tmp_path, split):
        tokenizer = SymbolTokenizer.learn([TEXT])
        cut = tokenize_split(corpus, split, tokenizer, tmp_path)
        expected = tokenizer.encode(corpus.text(split))
        np.testing.assert_array_equal(cut.tokens, expected)
        assert cut.tokens.dtype == np.uint8
        assert isinstance(cut.tokens, np.memmap)
        assert cut.document_starts.tolist() == [0]

    def test_the_text_is_read_once(self, counted, tmp_path):
        corpus, reads = counted
        first = tokenize_split(corpus, "train", ByteTokenizer(), tmp_path)
        again = tokenize_split(corpus, "train", ByteTokenizer(), tmp_path)
        assert reads == ["train"]
        assert bytes(first.tokens) == bytes(again.tokens)
        assert bytes(first.tokens) == b"one\ntwo\nthree\n"

    def test_an_empty_document_is_none(self, counted, tmp_path):
        cut = tokenize_split(counted[0], "train", ByteTokenizer(), tmp_path)
        assert cut.document_starts.tolist() == [0, 8]
        assert cut.document_starts.dtype == np.int64

    def test_an_empty_split_has_no_tokens(self, tmp_path):
        corpus = Corpus.from_text("text", b"x")
        cut = tokenize_split(corpus, "train", ByteTokenizer(), tmp_path)
        assert len(cut.tokens) == 0
        assert cut.document_starts.tolist() == []

    def test_other_text_or_ids_are_not_mistaken_for_it(self, corpus, tmp_path):
        tokenizers = (SymbolTokenizer.learn([TEXT]), ByteTokenizer())
        other = Corpus.from_text("hamlet", TEXT.replace(b"be", b"eb"))
        cuts = [
            bytes(tokenize_split(text, split, tokenizer, tmp_path).tokens)
            for text in (corpus, other)
            for split in ("train", "all")
            for tokenizer in tokenizers
        ]
        assert len(set(cuts)) == len(folders(tmp_path)) == 8

    @pytest.mark.parametrize(
        "damage",
        [
            lambda folder: (folder / "tokens.bin").write_bytes(b"x"),
            lambda folder: (folder / "tokens.bin").unlink(),
            lambda folder: (folder / "about.json").write_text("{"),
            lambda folder: (folder / "about.json").write_text("[]"),
            lambda folder: (folder / "about.json").write_text("{}"),
            lambda folder: (folder / "about.json").unlink(),
            lambda folder: (folder / "document_starts.bin").write_bytes(b""),
        ],
    )
    def test_what_is_damaged_is_made_again(self, counted, tmp_path, damage):
        corpus, reads = counted
        tokenize_split(corpus, "train", ByteTokenizer(), tmp_path)
        (name,) = folders(tmp_path)
        damage(tmp_path / name)
        cut = tokenize_split(corpus, "train", ByteTokenizer(), tmp_path)
        assert bytes(cut.tokens) == b"one\ntwo\nthree\n"
        assert reads == ["train"] * 2
        assert folders(tmp_path) == [name]

    def test_damage_is_told(self, counted, tmp_path, caplog):
        tokenize_split(counted[0], "train", ByteTokenizer(), tmp_path)
        (name,) = folders(tmp_path)
        (tmp_path / name / "tokens.bin").write_bytes(b"x")
        with caplog.at_level(logging.WARNING):
            tokenize_split(counted[0], "train", ByteTokenizer(), tmp_path)
        assert "tokens.bin must have 14 bytes; it has 1" in caplog.text
        assert name in caplog.text

    def test_a_byte_without_an_id_is_named_and_leaves_nothing(self, tmp_path):
        pieces = (Piece(b"a" * 81, True), Piece(b"b" * 10 + b"\xe9", False))
        corpus = Corpus("book", ("train",), "f" * 64, "", lambda _: pieces)
        message = (
            "^train split of corpus 'book': from byte 81 on, byte 233 at "
            "offset 10 is outside"
        )
        with pytest.raises(ValueError, match=message):
            tokenize_split(corpus, "train", ByteTokenizer(128), tmp_path)
        assert folders(tmp_path) == []
        # Validation is the bytes 90 to 94.
        text = b"a" * 92 + b"\xe9" + b"a" * 7
        corpus = Corpus.from_text("book", text)
        message = "^validation split of corpus 'book': byte 233 at offset 2 is"
        for tokenizer in (SymbolTokenizer(b"a"), ByteTokenizer(128)):
            with pytest.raises(ValueError, match=message):
                tokenize_split(corpus, "validation", tokenizer, tmp_path)

    def test_an_unknown_split_is_refused(self, corpus, tmp_path):
        with pytest.raises(ValueError, match="^split must be .*'valid'$"):
            tokenize_split(corpus, "valid", ByteTokenizer(), tmp_path)
        assert folders(tmp_path) == []

    def test_several_at_once_do_not_disturb_each_other(self, tmp_path):
        corpus = Corpus.from_text("text", TEXT * 1000)
        results, threads = [], []
        for _ in range(5):
            threads.append(
                threading.Thread(
                    target=lambda: results.append(
                        tokenize_split(
                            corpus, "train", ByteTokenizer(), tmp_path
                        )
                    )
                )
            )
            threads[-1].start()
        for thread in threads:
            thread.join()
        expected = corpus.text("train")
        assert [bytes(cut.tokens) == expected for cut in results] == [True] * 5
        assert len(folders(tmp_path)) == 1

    @pytest.mark.parametrize("damaged", [False, True])
    def test_a_faster_process_keeps_what_it_made(
        self, counted, tmp_path, monkeypatch, damaged
    ):
        def tokenize():
            return tokenize_split(
                counted[0], "train", ByteTokenizer(), tmp_path
            )

        if damaged:
            tokenize()
            (name,) = folders(tmp_path)
            (tmp_path / name / "about.json").unlink()
        other = []

        def after_the_other(call, *arguments, **options):
            monkeypatch.undo()
            other.append(tokenize())
            (name,) = (n for n in folders(tmp_path) if not n.startswith("."))
            other.append((tmp_path / name).stat().st_ino)
            return call(*arguments, **options)

        for module, name in ((os, "rename"), (shutil, "rmtree")):
            call = functools.partial(after_the_other, getattr(module, name))
            monkeypatch.setattr(module, name, call)
        cut = tokenize()
        cut_of_other, inode = other
        for tokens in (cut.tokens, cut_of_other.tokens):
            assert bytes(tokens) == b"one\ntwo\nthree\n"
        (name,) = folders(tmp_path)
        assert (tmp_path / name).stat().st_ino == inode

    def test_it_may_be_deleted_once_it_is_there(
        self, counted, tmp_path, monkeypatch
    ):
        rename = os.rename

        def rename_and_delete(source, target):
            rename(source, target)
            shutil.rmtree(target)

        monkeypatch.setattr(os, "rename", rename_and_delete)
        cut = tokenize_split(counted[0], "train", ByteTokenizer(), tmp_path)
        assert bytes(cut.tokens) == b"one\ntwo\nthree\n"
        assert folders(tmp_path) == []

    def test_a_folder_that_cannot_be_made_is_an_os_error(
        self, corpus, tmp_path
    ):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="file"):
            tokenize_split(
                corpus, "train", ByteTokenizer(), tmp_path / "file" / "cache"
            )

    def test_by_default_it_is_in_the_users_cache(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert default_cache_dir() == str(tmp_path / "official_lrm")
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert default_cache_dir() == str(tmp_path / ".cache/official_lrm")


class TestLearnTokenizer:
    def test_it_is_learnt_once(self, counted, tmp_path):
        corpus, reads = counted
        configs = [
            learn_tokenizer(
                "symbols", corpus, "train", 99, cache_dir=tmp_path
            ).get_config()
            for _ in range(2)
        ]
        expected = SymbolTokenizer.learn([b"one\ntwo\nthree\n"]).get_config()
        assert configs == [expected] * 2
        assert reads == ["train"]
        (name,) = folders(tmp_path)
        # Damage is not an error either.
        (tmp_path / name).write_text("{")
        learn_tokenizer("symbols", corpus, "train", 99, cache_dir=tmp_path)
        assert reads == ["train"] * 2
        assert json.loads((tmp_path / name).read_text()) == expected
        assert folders(tmp_path) == [name]

    def test_bytes_need_no_text(self, counted, tmp_path):
        corpus, reads = counted
        tokenizer = learn_tokenizer(
            "bytes", corpus, "train", 128, cache_dir=tmp_path
        )
        assert tokenizer.vocab_size == 128
        assert not reads
        assert folders(tmp_path) == []
        with pytest.raises(ValueError, match="vocab_size .* got 257"):
            learn_tokenizer("bytes", corpus, "train", 257, cache_dir=tmp_path)


def test_a_text_that_changes_is_not_kept_under_its_old_hash(tmp_path):
    """Given a file that changes after it was hashed, then its new text is not
    taken for the old one."""
    file = tmp_path / "text.txt"
    file.write_bytes(b"abc abc ")
    corpus = load_corpus("text", file)
    file.write_bytes(b"xyz xyz ")
    message = "^path '.*text.txt' has changed while in use$"
    with pytest.raises(ValueError, match=message):
        tokenize_split(corpus, "all", ByteTokenizer(), tmp_path / "cache")
    assert folders(tmp_path / "cache") == []


def test_starts_that_cannot_be_are_damage(counted, tmp_path):
    corpus, reads = counted
    tokenize_split(corpus, "train", ByteTokenizer(), tmp_path)
    (name,) = folders(tmp_path)
    np.array([255, 8]).tofile(tmp_path / name / "document_starts.bin")
    cut = tokenize_split(corpus, "train", ByteTokenizer(), tmp_path)
    assert cut.document_starts.tolist() == [0, 8]
    assert reads == ["train"] * 2


def test_other_users_may_read_it(counted, tmp_path):
    tokenize_split(counted[0], "train", ByteTokenizer(), tmp_path / "cache")
    (name,) = folders(tmp_path / "cache")
    made = tmp_path / "cache" / name
    (tmp_path / "other").mkdir()
    assert made.stat().st_mode == (tmp_path / "other").stat().st_mode
