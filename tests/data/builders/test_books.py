import gzip
import hashlib
import lzma

import pytest

from official_lrm.data.builders import LrmBooks, text_builder
from official_lrm.data.builders.text_builder import fingerprint_of


def write_books(folder, names, text=b"A book \xff\r\n\r\n%s\n"):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        content = text.replace(b"%s", name.encode())
        if name.endswith(".xz"):
            content = lzma.compress(content)
        elif name.endswith(".gz"):
            content = gzip.compress(content)
        (folder / name).write_bytes(content)
    return [text.replace(b"%s", name.encode()) for name in sorted(names)]


def test_a_flat_folder_is_split_by_name(tmp_path):
    books = tmp_path / "books"
    write_books(books, [f"{number:02}.txt" for number in range(50)])
    (books / "README.md").write_text("no book")
    found = LrmBooks.find_files(books)
    assert {split: len(paths) for split, paths in found.items()} == {
        "train": 44,
        "validation": 3,
        "test": 3,
    }
    names = [path.name for split in found for path in found[split]]
    assert names == sorted(names)


def test_three_books_are_enough(tmp_path):
    write_books(tmp_path / "books", ["10.txt.gz", "2.txt", "1.txt.xz"])
    found = LrmBooks.find_files(tmp_path / "books")
    # Sorted as the names without compression are: "1.txt" < "10.txt".
    assert [[path.name for path in paths] for paths in found.values()] == [
        ["1.txt.xz"],
        ["10.txt.gz"],
        ["2.txt"],
    ]


def test_the_layout_of_pg19(tmp_path, prepare, read):
    train = write_books(tmp_path / "pg19" / "train", ["9.txt", "10.txt.xz"])
    test = write_books(tmp_path / "pg19" / "test", ["3.txt.gz"])
    (tmp_path / "pg19" / "metadata.csv").write_text("no book")
    (tmp_path / "pg19" / "validation").mkdir()
    builder = prepare(LrmBooks, tmp_path / "pg19")
    assert read(builder, "train") == list(enumerate(train))
    assert read(builder, "test") == [(0, test[0])]
    metadata = builder.info.metadata
    assert metadata["missing"] == {"validation": "validation/*.txt"}
    joined = b"".join(train)
    assert metadata["splits"]["train"] == {
        "bytes": len(joined),
        "documents": 2,
        "sha256": hashlib.sha256(joined).hexdigest(),
        "lengths_sha256": hashlib.sha256(
            "".join(f"{len(text)}\n" for text in train).encode()
        ).hexdigest(),
    }
    assert metadata["fingerprint"] == fingerprint_of(metadata["splits"])


def test_several_shards_are_read_in_order(tmp_path, monkeypatch, prepare, read):
    monkeypatch.setattr(text_builder, "SHARD_BYTES", 2**19)
    line = b"%07d a line of a long book\n"
    texts = [
        b"".join(line % (number * book) for number in range(40_000))
        for book in (1, 2, 3)
    ]
    (tmp_path / "train").mkdir()
    for number, text in enumerate(texts):
        (tmp_path / "train" / f"{number}.txt").write_bytes(text)
    builder = prepare(LrmBooks, tmp_path)
    assert builder.info.splits["train"].num_shards == 7
    assert min(builder.info.splits["train"].shard_lengths) > 0
    # Else TFDS reads several shards by turns, 16 records of each.
    assert builder.info.disable_shuffling
    records = read(builder, "train")
    assert records == read(builder, "train")
    for number, text in enumerate(texts):
        parts = [part for document, part in records if document == number]
        assert b"".join(parts) == text
    documents = [document for document, _ in records]
    assert documents == sorted(documents)


def test_where_a_document_ends_is_part_of_the_fingerprint(tmp_path, prepare):
    fingerprints = set()
    for texts in ([b"ab", b"c"], [b"a", b"bc"]):
        folder = tmp_path / f"{len(fingerprints)}"
        (folder / "train").mkdir(parents=True)
        for number, text in enumerate(texts):
            (folder / "train" / f"{number}.txt").write_bytes(text)
        builder = prepare(LrmBooks, folder)
        fingerprints.add(builder.info.metadata["fingerprint"])
        builder.data_path.rmtree()
    assert len(fingerprints) == 2


def test_empty_books_are_passed_over_with_a_warning(
    tmp_path, prepare, read, caplog
):
    texts = write_books(tmp_path / "train", ["1.txt", "3.txt"])
    (tmp_path / "train" / "2.txt").write_bytes(b"")
    builder = prepare(LrmBooks, tmp_path)
    assert read(builder, "train") == list(enumerate(texts))
    assert "2.txt' is empty; passed over" in caplog.text


HEADER = b"The Project Gutenberg EBook\r\n*** START OF THIS PROJECT"
FOOTER = b"*** END OF THIS PROJECT GUTENBERG EBOOK ***\r\nLicence\r\n"
BODY = b"\r\nCHAPTER I\r\n\r\nA *** START OF no marker\r\nText.\r\n"


@pytest.mark.parametrize(
    "marker",
    [
        b" GUTENBERG EBOOK A TITLE ***\r\n",
        b" GUTENBERG EBOOK A TITLE, BY\r\nAN AUTHOR, ILLUSTRATED ***\r\n",
    ],
)
def test_gutenberg_keeps_the_book_proper(marker, tmp_path, prepare, read):
    (tmp_path / "train").mkdir()
    text = HEADER + marker + BODY + FOOTER
    (tmp_path / "train" / "1.txt").write_bytes(text)
    assert read(prepare(LrmBooks, tmp_path, "plain"), "train") == [(0, text)]
    assert read(prepare(LrmBooks, tmp_path, "gutenberg"), "train") == [
        (0, BODY.replace(b"\r\n", b"\n"))
    ]


@pytest.mark.parametrize("text", [BODY, HEADER + b" ***\r\n" + BODY])
def test_gutenberg_keeps_books_without_markers_whole(
    text, tmp_path, prepare, read, caplog
):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "1.txt").write_bytes(text)
    builder = prepare(LrmBooks, tmp_path, "gutenberg")
    assert read(builder, "train") == [(0, text.replace(b"\r\n", b"\n"))]
    assert "1 books have no '*** START OF' or no" in caplog.text


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ([], FileNotFoundError, "has no book; put there folders train"),
        (["1.txt", "2.txt"], ValueError, "has 2 books, too few to split"),
        (["1.txt", "1.txt.xz"], ValueError, "has 1.txt twice"),
        (["1.txt", "train/1.txt"], ValueError, "and folders of splits"),
    ],
)
def test_folders_that_are_refused(names, error, message, tmp_path):
    (tmp_path / "train").mkdir()
    for name in names:
        (tmp_path / name).write_text("text")
    with pytest.raises(error, match=message):
        LrmBooks.find_files(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent' is no folder"):
        LrmBooks.find_files(tmp_path / "absent")


def test_only_empty_books_are_refused(tmp_path, prepare):
    write_books(tmp_path / "train", ["1.txt"], text=b"")
    with pytest.raises(ValueError, match="train' are empty$"):
        prepare(LrmBooks, tmp_path)


def test_a_book_that_changes_meanwhile_is_refused(
    tmp_path, prepare, monkeypatch
):
    write_books(tmp_path / "train", ["1.txt"])

    def read_layout(self, files):
        layout = original(self, files)
        with (tmp_path / "train" / "1.txt").open("ab") as file:
            file.write(b"more")
        return layout

    original = LrmBooks._read_layout
    monkeypatch.setattr(LrmBooks, "_read_layout", read_layout)
    with pytest.raises(ValueError, match=r"1.txt' changed while it was read"):
        prepare(LrmBooks, tmp_path)
