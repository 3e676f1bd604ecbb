import os
import subprocess
import sys

import pytest

from official_lrm.data.tfds_corpora import TFDS_CORPORA, open_tfds_corpus


def write_books(folder, texts):
    folder.mkdir(parents=True)
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_bytes(text)


@pytest.fixture
def books(tmp_path):
    folder = tmp_path / "books"
    write_books(folder / "train", [b"one \xff\n", b"two\n" * 100_000])
    write_books(folder / "test", [b"three\n"])
    return folder


def test_a_corpus_is_read_in_order(books, tmp_path, capsys):
    corpus = open_tfds_corpus("books", books, data_dir=tmp_path / "tfds")
    assert corpus.splits == ("train", "test")
    records = list(corpus.read("train"))
    assert b"".join(text for text, _ in records) == (
        b"one \xff\n" + b"two\n" * 100_000
    )
    assert [starts for _, starts in records] == [True, True, False]
    assert list(corpus.read("test")) == [(b"three\n", True)]
    assert list(corpus.read("test")) == [(b"three\n", True)]
    assert len(corpus.fingerprint) == 64
    assert corpus.description == (
        "books: train 400,006, test 6 bytes, sha256 " + corpus.fingerprint[:12]
    )
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(
        f"preparing corpus books from {books} in {tmp_path / 'tfds'}"
    )


def test_it_is_prepared_once(books, tmp_path, capsys):
    first = open_tfds_corpus("books", books, data_dir=tmp_path / "tfds")
    capsys.readouterr()
    second = open_tfds_corpus("books", books, data_dir=tmp_path / "tfds")
    assert capsys.readouterr().err == ""
    assert first == second
    assert list(first.read("train")) == list(second.read("train"))


def test_a_split_that_is_not_there_names_the_missing_file(books, tmp_path):
    corpus = open_tfds_corpus("books", books, data_dir=tmp_path / "tfds")
    with pytest.raises(
        ValueError,
        match=r"no split 'validation', for it was prepared without "
        r"validation/\*.txt; allowed are train, test$",
    ):
        corpus.read("validation")
    with pytest.raises(ValueError, match="no split 'all'; allowed are train"):
        corpus.read("all")


def test_changed_books_are_prepared_anew(books, tmp_path):
    first = open_tfds_corpus("books", books, data_dir=tmp_path / "tfds")
    path = books / "test" / "0.txt"
    before = path.stat()
    path.write_bytes(b"trees\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    second = open_tfds_corpus("books", books, data_dir=tmp_path / "tfds")
    assert list(second.read("test")) == [(b"trees\n", True)]
    assert second.fingerprint != first.fingerprint
    # The old data are untouched.
    assert list(first.read("test")) == [(b"three\n", True)]


def test_configurations_are_kept_apart(books, tmp_path):
    (books / "test" / "0.txt").write_bytes(b"three\r\n")
    texts = {
        config: list(
            open_tfds_corpus(
                "books", books, data_dir=tmp_path / "tfds", config=config
            ).read("test")
        )
        for config in (None, "gutenberg")
    }
    assert texts == {
        None: [(b"three\r\n", True)],
        "gutenberg": [(b"three\n", True)],
    }


def test_two_processes_may_prepare_at_once(books, tmp_path, monkeypatch):
    from official_lrm.data.builders import LrmBooks

    rivals = []
    original = LrmBooks._read_layout

    def read_layout(self, files):
        if not rivals:
            rivals.append(None)
            # The rival finishes while this one is at work.
            rivals[0] = open_tfds_corpus(
                "books", books, data_dir=tmp_path / "tfds"
            )
        return original(self, files)

    monkeypatch.setattr(LrmBooks, "_read_layout", read_layout)
    corpus = open_tfds_corpus("books", books, data_dir=tmp_path / "tfds")
    assert corpus == rivals[0]
    assert list(corpus.read("test")) == [(b"three\n", True)]
    left = (tmp_path / "tfds").rglob("*incomplete*")
    assert list(left) == []


def test_tfds_folder_of_manual_downloads_is_looked_at(books, tmp_path):
    manual = tmp_path / "tfds" / "downloads" / "manual"
    manual.parent.mkdir(parents=True)
    books.rename(manual)
    corpus = open_tfds_corpus("books", data_dir=tmp_path / "tfds")
    assert corpus.splits == ("train", "test")


def test_a_failed_preparation_leaves_no_file(tmp_path, monkeypatch):
    from official_lrm.data.builders import LrmWikitext2

    def get_files(self, dl_manager):
        raise ConnectionError("no network")

    monkeypatch.setattr(LrmWikitext2, "_get_files", get_files)
    with pytest.raises(ConnectionError, match="no network"):
        open_tfds_corpus("wikitext2", data_dir=tmp_path / "tfds")
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left == []


@pytest.mark.parametrize("name", [n for n in TFDS_CORPORA if n != "books"])
def test_an_empty_folder_is_refused(name, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=rf"corpus '{name}': .* put there .*\.zip, or"
    ):
        open_tfds_corpus(name, tmp_path, data_dir=tmp_path / "tfds")


def test_books_need_a_path(tmp_path):
    with pytest.raises(ValueError, match="needs a path, got None. .*gsutil"):
        open_tfds_corpus("books", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("enwik9", None, "unknown corpus 'enwik9'; allowed are enwik8, text8"),
        ("text8", "plain", "must be only None, got 'plain'"),
        ("books", "x", "must be 'plain', 'gutenberg', got 'x'"),
    ],
)
def test_wrong_names_are_refused(name, config, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        open_tfds_corpus(name, data_dir=tmp_path, config=config)


def test_importing_the_data_package_leaves_tfds_out():
    code = (
        "import sys, official_lrm.data\n"
        "assert 'official_lrm.data.tfds_corpora' in sys.modules\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
