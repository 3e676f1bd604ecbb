"""Tests of the corpora: splits, fingerprints, and every way to misname one."""

import builtins
import gzip
import hashlib
import lzma
import os
import pathlib
import random
import sysconfig
import time

import pytest

from official_lrm.data import (
    Corpus,
    corpus_names,
    load_corpus,
)
from official_lrm.data.stdlib_sources import read_stdlib_sources

TEXT = bytes(random.Random(7).randbytes(4_001))


@pytest.fixture
def folder(tmp_path):
    """A folder with 2.txt, 10.txt, other.md, an archive of each kind."""
    (tmp_path / "2.txt").write_bytes(b"two\n")
    (tmp_path / "10.txt").write_bytes(b"ten\r\n")
    (tmp_path / "other.md").write_bytes(b"other")
    (tmp_path / "a.xz").write_bytes(lzma.compress(TEXT))
    (tmp_path / "a.gz").write_bytes(gzip.compress(TEXT))
    return tmp_path


def whole(path):
    return load_corpus("text", path).text("all")


def message_of(error, path, name="text"):
    """The message of the error that loading raises, which is one line."""
    with pytest.raises(error) as info:
        load_corpus(name, path)
    assert info.type is error
    message = str(info.value)
    assert "\n" not in message
    return message


class TestSplits:
    @pytest.mark.parametrize(
        ("size", "sizes"),
        [
            (41, (36, 2, 3)),
            (1_000, (900, 50, 50)),
            # The enwik8 prefix: floor(5%) would be 207,719.
            (4_154_399, (3_738_959, 207_720, 207_720)),
            (19, (17, 1, 1)),
            (1, (0, 0, 1)),
        ],
    )
    def test_sizes_are_as_computed_by_hand(self, size, sizes):
        corpus = Corpus.from_text("text", b"x" * size)
        assert corpus.splits == ("train", "validation", "test")
        assert tuple(len(corpus.text(n)) for n in corpus.splits) == sizes

    def test_the_splits_join_to_the_whole(self):
        corpus = Corpus.from_text("text", TEXT)
        parts = [corpus.text(n) for n in ("train", "validation", "test")]
        assert b"".join(parts) == corpus.text("all") == TEXT
        assert parts == [TEXT[:3600], TEXT[3600:3800], TEXT[3800:]]

    def test_an_unknown_split_is_refused(self):
        corpus = Corpus.from_text("text", TEXT)
        with pytest.raises(
            ValueError,
            match="^split must be one of train, validation, test, all, "
            "got 'valid'$",
        ):
            corpus.read("valid")

    @pytest.mark.parametrize("split", ["train", "validation", "test", "all"])
    def test_a_text_comes_in_pieces_of_whole_lines(self, split):
        # Given a text in blocks that end anywhere,
        rng = random.Random(5)
        lines = [b"x" * rng.randrange(200) + b"\n" for _ in range(60_000)]
        text = b"".join(lines) + b"no newline at the end"
        blocks = [text[i : i + 77_777] for i in range(0, len(text), 77_777)]
        corpus = Corpus.from_blocks("text", lambda: iter(blocks))
        # when a split is read,
        pieces = list(corpus.read(split))
        # then it is one document, cut after newlines.
        first, end = {
            "train": (0, 0.9),
            "validation": (0.9, 0.95),
            "test": (0.95, 1),
            "all": (0, 1),
        }[split]
        expected = text[int(first * len(text)) : int(end * len(text))]
        assert b"".join(piece.text for piece in pieces) == expected
        assert [piece.starts_document for piece in pieces] == [
            index == 0 for index in range(len(pieces))
        ]
        assert all(piece.text.endswith(b"\n") for piece in pieces[:-1])
        assert max(len(piece.text) for piece in pieces) <= 2**20
        assert (len(pieces) > 10) == (split in ("train", "all"))

    def test_a_text_is_read_again_from_its_beginning(self):
        corpus = Corpus.from_text("text", TEXT)
        first = corpus.read("validation")
        next(first)
        assert corpus.text("validation") == TEXT[3600:3800]


class TestCorpus:
    def test_the_fingerprint_is_the_hash_of_text_and_cuts(self):
        corpus = Corpus.from_text("text", b"x" * 41)
        expected = hashlib.sha256(b"x" * 41 + b"\nsplits 36 38 41").hexdigest()
        assert corpus.fingerprint == expected

    def test_one_changed_byte_changes_the_fingerprint(self):
        other = TEXT[:-1] + bytes([TEXT[-1] ^ 1])
        first = Corpus.from_text("text", TEXT)
        assert first.fingerprint != Corpus.from_text("text", other).fingerprint
        assert first == Corpus.from_text("text", TEXT)

    def test_the_description_is_one_line_for_people(self):
        corpus = Corpus.from_blocks("text", lambda: iter([TEXT]), num_files=3)
        assert corpus.description == (
            f"text: 3 files, 4,001 bytes, sha256 {corpus.fingerprint[:12]}"
        )
        assert ": 1 file, " in Corpus.from_text("text", TEXT).description

    def test_it_is_frozen_and_its_repr_is_short(self):
        corpus = Corpus.from_text("text", TEXT)
        with pytest.raises(AttributeError):
            corpus.name = "other"
        assert len(repr(corpus)) < 250


class TestNames:
    def test_these_are_the_corpora(self):
        assert corpus_names() == [
            "books",
            "enwik8",
            "python_stdlib",
            "text",
            "text8",
            "wikitext103",
            "wikitext2",
        ]

    @pytest.mark.parametrize(
        ("name", "nearest"),
        [
            ("python-stdlib", "python_stdlib"),
            ("txt", "text"),
            ("wikitext", "wikitext2"),
        ],
    )
    def test_an_unknown_name_is_answered_with_the_nearest(self, name, nearest):
        message = message_of(ValueError, None, name)
        assert message.startswith(f"unknown corpus {name!r}; did you mean ")
        assert nearest in message.partition("?")[0]
        assert message.endswith(f"allowed are {', '.join(corpus_names())}")

    def test_text_needs_a_path(self):
        message = message_of(ValueError, None)
        assert message.startswith("corpus 'text' needs a path, got None")

    def test_python_stdlib_takes_no_path(self):
        message = message_of(ValueError, "a.txt", "python_stdlib")
        assert message.startswith("corpus 'python_stdlib' takes no path, got")
        assert "'a.txt'" in message


class TestText:
    def test_a_file_is_read_as_it_is(self, folder):
        assert whole(str(folder / "10.txt")) == b"ten\r\n"
        assert whole(folder / "10.txt") == b"ten\r\n"

    def test_a_glob_is_read_in_sorted_order(self, folder):
        assert whole(f"{folder}/*.txt") == b"ten\r\ntwo\n"

    def test_items_are_read_in_the_order_given(self, folder):
        expected = b"othertwo\n" + TEXT
        names = [f"{folder}/other.md", f"{folder}/[2-9].txt", f"{folder}/a.xz"]
        assert whole(names) == expected
        assert whole(tuple(map(pathlib.Path, names))) == expected
        assert whole(",".join(names)) == expected
        assert whole(", ".join(names)) == expected
        corpus = load_corpus("text", names)
        assert corpus.description.startswith("text: 3 files, 4,010 bytes, ")

    @pytest.mark.parametrize("name", ["a.xz", "a.gz"])
    def test_archives_are_decompressed(self, folder, name):
        assert whole(folder / name) == TEXT

    def test_a_name_that_looks_like_a_list_or_glob_may_be_a_file(self, folder):
        for name in ("2.txt,10.txt", "[0-9].txt", " padded "):
            (folder / name).write_bytes(name.encode())
            assert whole(f"{folder}/{name}") == name.encode()

    def test_a_glob_passes_over_folders_and_empty_files(self, folder):
        (folder / "sub").mkdir()
        (folder / "sub" / "3.txt").write_bytes(b"three\n")
        (folder / "sub" / "4.txt").write_bytes(b"")
        assert whole(f"{folder}/**/*.txt") == b"ten\r\ntwo\nthree\n"

    def test_a_missing_file_is_named(self, folder):
        message = message_of(FileNotFoundError, f"{folder}/3.txt")
        assert message == f"path '{folder}/3.txt' does not exist"
        message = message_of(
            FileNotFoundError, f"{folder}/2.txt,{folder}/3.txt"
        )
        assert message == f"path '{folder}/3.txt' does not exist"

    def test_a_glob_without_a_match_is_named(self, folder):
        message = message_of(FileNotFoundError, f"{folder}/*.text")
        assert message == f"path '{folder}/*.text' matches no file"

    def test_a_folder_is_answered_with_a_glob(self, folder):
        message = message_of(ValueError, folder)
        assert message == (
            f"path '{folder}' is a directory; give a glob such as "
            f"'{folder}/*.txt'"
        )

    @pytest.mark.parametrize("name", ["e.txt", "e.xz", "e.gz"])
    def test_an_empty_file_is_refused(self, folder, name):
        pack = {".xz": lzma.compress, ".gz": gzip.compress}
        packed = pack.get(name[-3:], bytes)(b"")
        (folder / name).write_bytes(packed)
        message = message_of(ValueError, [folder / "2.txt", folder / name])
        assert message == f"path '{folder}/{name}' is an empty file"
        assert "matches only empty files" in message_of(
            ValueError, f"{folder}/e.*"
        )

    def test_a_file_named_twice_is_refused(self, folder):
        message = message_of(ValueError, f"{folder}/2.txt,{folder}/*.txt")
        assert message.startswith(f"path names '{folder}/2.txt' twice")

    @pytest.mark.parametrize("name", ["a.xz", "a.gz"])
    @pytest.mark.parametrize(
        "damage",
        [
            lambda packed: packed[:-5],
            lambda packed: packed[:11],
            lambda packed: packed[:500] + b"#!" + packed[502:],
            lambda packed: packed[:20] + bytes(40) + packed[60:],
            lambda packed: b"plain text, not an archive",
            lambda packed: b"\x1f",
        ],
        ids=["cut", "header", "payload", "block", "text", "byte"],
    )
    def test_a_damaged_archive_is_named(self, folder, name, damage):
        (folder / name).write_bytes(damage((folder / name).read_bytes()))
        message = message_of(ValueError, folder / name)
        assert message.startswith(
            f"'{folder}/{name}' is truncated, corrupt or not such an archive: "
        )

    def test_an_unreadable_file_is_named(self, folder, monkeypatch):
        # Patched, as no permission keeps a super-user out.
        def refuse(*unused_args):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(builtins, "open", refuse)
        message = message_of(PermissionError, f"{folder}/2.txt")
        assert message == f"'{folder}/2.txt' is not readable"

    @pytest.mark.parametrize("path", ["", ",", "a,,b", [], [3], 3, b"a", [""]])
    def test_a_path_that_names_nothing_is_refused(self, path):
        message = message_of(ValueError, path)
        assert message.startswith("path must be a file, a glob, a comma-sep")
        assert message.endswith(f", got {path!r}")


class TestPythonStdlib:
    @pytest.fixture
    def library(self, tmp_path, monkeypatch):
        """Makes a library of the given files the interpreter's own."""

        def make(files):
            for name, text in files.items():
                path = tmp_path / "lib" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text)
            monkeypatch.setattr(
                sysconfig, "get_path", lambda _: str(tmp_path / "lib")
            )
            return tmp_path / "lib"

        return make

    def test_tests_packages_and_build_records_are_left_out(self, library):
        kept = ["os.py", "json/tool.py", "testing/a.py", "xml/test.py"]
        left_out = [
            "test/a.py",
            "ctypes/test/a.py",
            "lib2to3/tests/data/a.py",
            "idlelib/idle_test/a.py",
            "site-packages/a/b.py",
            "dist-packages/a.py",
            "json/__pycache__/tool.py",
            "config-3.11-x86_64-linux-gnu/a.py",
            "_sysconfigdata__linux_x86_64-linux-gnu.py",
            "os.pyc",
            "LICENSE.txt",
        ]
        library({name: b"1\n" for name in kept + left_out})
        names, text = read_stdlib_sources(minimum_bytes=1)
        assert sorted(names) == sorted(kept)
        assert text == b"1\n" * 4

    def test_files_are_in_the_order_of_their_hashes(self, library):
        # SHA-256: json/tool.py 50..., abc.py c4..., os.py d9...
        library({"abc.py": b"a", "os.py": b"o\n", "json/tool.py": b"j\r\nk"})
        names, text = read_stdlib_sources(minimum_bytes=1)
        assert names == ["json/tool.py", "abc.py", "os.py"]
        assert text == b"j\nk\na\no\n"

    def test_a_link_counts_only_if_its_target_does_not(self, library, tmp_path):
        root = library({"a.py": b"a\n"})
        (tmp_path / "elsewhere.py").write_bytes(b"e\n")
        os.symlink(root / "a.py", root / "b.py")
        os.symlink(tmp_path / "elsewhere.py", root / "c.py")
        os.symlink(tmp_path / "elsewhere.py", root / "d.py")
        os.symlink(tmp_path / "missing.py", root / "e.py")
        names, _ = read_stdlib_sources(minimum_bytes=1)
        assert sorted(names) == ["a.py", "c.py"]

    def test_a_stripped_library_is_refused(self, library):
        root = library({"os.py": b"x = 1\n"})
        message = message_of(FileNotFoundError, None, "python_stdlib")
        assert message.startswith(
            f"corpus 'python_stdlib' found 1 source files with 6 bytes in "
            f"'{root}', needed are at least 1000000 bytes"
        )

    def test_a_library_that_is_not_there_is_refused(self, monkeypatch):
        monkeypatch.setattr(sysconfig, "get_path", lambda _: "/no/python3.zip")
        message = message_of(FileNotFoundError, None, "python_stdlib")
        assert "found 0 source files with 0 bytes in '/no/python3" in message

    def test_the_real_one_is_large_and_the_same_each_time(self):
        began = time.monotonic()
        corpus = load_corpus("python_stdlib")
        seconds = time.monotonic() - began
        assert len(corpus.text("all")) > 5_000_000
        assert b"\r\n" not in corpus.text("all")
        assert corpus.fingerprint == load_corpus("python_stdlib").fingerprint
        # Measured: 0.1 s with the files in the page cache.
        assert seconds < 30
