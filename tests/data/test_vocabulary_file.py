"""Vocabularies as text."""

import pytest

from official_lrm.data.vocabulary_file import read_vocabulary


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        (b"<eos>\nthe\n,\n", ["<eos>", "the", ","]),
        (b"<eos>\nthe\n,", ["<eos>", "the", ","]),
        (b"<eos>\r\nthe\r\n,\r\n", ["<eos>", "the", ","]),
        # Only line feeds end a line.
        ("a\u2028b\nc\x85\n\x1cd\n".encode(), ["a\u2028b", "c\x85", "\x1cd"]),
        ("né\n@-@\n 1\n".encode(), ["né", "@-@", " 1"]),
        (b"x\ny\r\nz\n", ["x", "y\r", "z"]),
    ],
)
def test_one_token_a_line(tmp_path, content, tokens):
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(content)
    assert read_vocabulary(path) == tokens


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "must hold one token a line, got no line"),
        (b"a\n\nc\n", "empty line 2"),
        (b"a\nb\na\n", "the token 'a' on the lines 1 and 3"),
        (b"a\n\xff\nc\n", r"is not UTF-8: line 2 is b'\xff'"),
        # What a pickle begins with.
        (b"\x80\x04\x95a\nb\nc", "is not UTF-8: line 1"),
    ],
)
def test_what_is_refused(tmp_path, content, expected):
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_vocabulary(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert expected in message
    assert "\n" not in message


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_vocabulary(tmp_path / "none.txt")
