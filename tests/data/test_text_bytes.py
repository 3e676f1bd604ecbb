"""Tests of how texts are cut."""

import io
import random
import tracemalloc

import pytest

from official_lrm.data.text_bytes import blocks, pieces_of


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (False, [b"the ", b"cat sat ", b"on"]),
        (True, [b"the", b" cat sat", b" on"]),
    ],
)
def test_a_text_is_cut_at_separators_only(before, expected):
    cut = blocks([b"the ca", b"t sat on"], b" ", 100, before)
    assert list(cut) == expected


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_blocks_make_the_text_wherever_its_pieces_are_cut(size, before):
    rng = random.Random(size)
    text = bytes(rng.choice(b"abcdefg \n") for _ in range(1009))
    pieces, start = [], 0
    while start < len(text):
        length = rng.randrange(23)
        pieces.append(text[start : start + length])
        start += length
    cut = list(blocks(iter(pieces), b" \n", size, before))
    assert b"".join(cut) == text
    assert len(cut) > 10
    assert all(cut)
    if before:
        assert all(block[0] in b" \n" for block in cut[1:])
    else:
        assert all(block[-1] in b" \n" for block in cut[:-1])


def test_a_block_is_longer_only_without_separators():
    text = b"ab " * 100 + b"c" * 1009 + b" d"
    lengths = [len(block) for block in blocks([text], b" ", 30)]
    assert sorted(lengths)[-2] <= 32
    assert max(lengths) >= 1009
    assert list(blocks([b"c" * 1009], b" ", 30)) == [b"c" * 1009]


@pytest.mark.parametrize("pieces", [[], [b""], [b"", b""]])
def test_nothing_has_no_blocks(pieces):
    assert list(blocks(pieces, b" ", 7)) == []


def test_a_text_is_never_in_memory():
    part = b"abcdefg " * 2**14
    tracemalloc.start()
    try:
        pieces = (bytes(bytearray(part)) for _ in range(100))
        total = sum(len(block) for block in blocks(pieces, b" ", 2**16))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 100 * len(part)
    assert peak < 5 * len(part)


def test_pieces_may_be_any_bytes_or_str():
    pieces = ["né", bytearray(b"a"), memoryview(b"b"), b"c"]
    assert list(pieces_of(pieces)) == [b"n\xc3\xa9", b"a", b"b", b"c"]
    assert list(pieces_of(io.BytesIO(b"a\nb"))) == [b"a\n", b"b"]


@pytest.mark.parametrize("text", ["ab", b"ab", bytearray(b"ab")])
def test_a_text_is_no_iterable_of_pieces(text):
    message = rf"such as \[text\], got {type(text).__name__}$"
    with pytest.raises(TypeError, match=message):
        list(pieces_of(text))
