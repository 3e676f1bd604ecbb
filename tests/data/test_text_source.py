import gzip
import lzma
import random
import zipfile

import pytest

from official_lrm.data.text_source import (
    TextSource,
    count_words_and_lines,
    cut_records,
)

KIB = 2**10
MIB = 2**20


def in_blocks(text, num_bytes=100_003):
    return [text[i : i + num_bytes] for i in range(0, len(text), num_bytes)]


def random_lines(num_bytes, longest):
    source = random.Random(7)
    lines, total = [], 0
    while total < num_bytes:
        line = b"\xff " * source.randrange(longest // 2) + b"\n"
        lines.append(line)
        total += len(line)
    return b"".join(lines)


@pytest.mark.parametrize("num_bytes", [1, 1000, 300 * KIB])
def test_records_do_not_depend_on_the_blocks(num_bytes):
    text = random_lines(2 * MIB, longest=200)
    expected = list(cut_records([text]))
    assert list(cut_records(in_blocks(text, max(num_bytes, 999)))) == expected
    assert b"".join(expected) == text


def test_records_end_at_line_ends():
    text = random_lines(3 * MIB, longest=200) + b"no end"
    records = list(cut_records(in_blocks(text)))
    assert b"".join(records) == text
    assert all(record.endswith(b"\n") for record in records[:-1])
    assert all(64 * KIB < len(r) <= 256 * KIB for r in records[:-1])


def test_a_longer_line_is_a_longer_record():
    text = b"a\n" * 40_000 + b"b" * 700 * KIB + b"\n" + b"c\n" * 200_000
    records = list(cut_records(in_blocks(text)))
    assert b"".join(records) == text
    assert all(record.endswith(b"\n") for record in records)
    assert max(map(len, records)) > 700 * KIB


def test_text_without_line_ends_is_cut_after_white_space():
    text = b"seven letters " * 200_000
    records = list(cut_records(in_blocks(text)))
    assert b"".join(records) == text
    assert all(record.endswith(b" ") for record in records)
    assert [MIB - 14 < len(record) <= MIB for record in records[:-1]] == [
        True
    ] * 2


def test_text_without_white_space_is_cut_at_a_mebibyte():
    text = b"x" * (2 * MIB + 5)
    records = list(cut_records(in_blocks(text)))
    assert [len(record) for record in records] == [MIB, MIB, 5]


def test_no_text_has_no_records():
    assert list(cut_records([])) == []
    assert list(cut_records([b""])) == []


def test_words_and_line_ends_are_counted_across_blocks():
    text = b" = A title = \n \n some words\x0bhere\n" * 30_000
    assert count_words_and_lines(in_blocks(text)) == 10 * 30_000


@pytest.fixture(params=["plain", "xz", "gz", "zip"])
def stored(request, tmp_path):
    """A text of several blocks, and the sources of it in each format."""
    text = random_lines(MIB, longest=200)
    path = tmp_path / "text"
    if request.param == "plain":
        path.write_bytes(text)
    elif request.param == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("folder/text", text)
        return text, TextSource(path, member="folder/text")
    else:
        opener = {"xz": lzma.open, "gz": gzip.open}[request.param]
        path = tmp_path / f"text.{request.param}"
        with opener(path, "wb") as file:
            file.write(text)
    return text, TextSource(path)


def test_a_source_yields_its_text(stored):
    text, source = stored
    assert b"".join(source.blocks()) == text
    assert b"".join(source.lines()) == text
    assert max(map(len, source.blocks())) <= 256 * KIB


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 5), (3, None), (262_143, 262_145), (9, 600_000)]
)
def test_a_source_may_be_a_part(stored, start, stop):
    text, source = stored
    part = TextSource(source.path, source.member, start, stop)
    assert b"".join(part.blocks()) == text[start:stop]


def test_line_ends_are_converted_also_between_blocks(tmp_path):
    path = tmp_path / "text"
    text = (
        b"a" * (256 * KIB - 1) + b"\r\nb\r\nc\rd\n" + b"e" * 256 * KIB + b"\r"
    )
    path.write_bytes(text)
    source = TextSource(path, newlines=True)
    assert b"".join(source.blocks()) == text.replace(b"\r\n", b"\n")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.xz", lzma.compress(b"text" * 1000)[:-20]),
        ("a.xz", b"no archive"),
        ("a.gz", gzip.compress(b"text" * 1000)[:-20]),
        ("a.gz", b"no archive"),
    ],
)
def test_a_corrupt_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}' is truncated, corrupt"):
        list(TextSource(tmp_path / name).blocks())


def test_a_corrupt_member_is_found(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("text", b"0123456789")
    path.write_bytes(path.read_bytes().replace(b"0123456789", b"012345678x"))
    with pytest.raises(ValueError, match="a.zip' is truncated, corrupt"):
        list(TextSource(path, member="text").blocks())
    with pytest.raises(ValueError, match="a.zip' is truncated, corrupt"):
        list(TextSource(path, member="other").blocks())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent' does not exist"):
        list(TextSource(tmp_path / "absent").blocks())


def test_a_character_is_not_cut():
    text = "水".encode() * 700_000  # 3 bytes each: 2**20 is inside one.
    records = list(cut_records([text]))
    assert b"".join(records) == text
    assert len(records) == 3
    assert all(record.decode() for record in records)
    # What is no UTF-8 is cut at a megabyte.
    records = list(cut_records([b"\x80" * (2**20 + 5)]))
    assert [len(record) for record in records] == [2**20, 5]
