"""Tests of the byte tokenizer."""

import numpy as np
import pytest

from official_lrm.data import ByteTokenizer, tokenizer_from_config


def test_a_str_becomes_the_bytes_of_its_utf8():
    ids = ByteTokenizer().encode("né\n")
    assert ids.tolist() == [110, 195, 169, 10]
    assert ids.dtype == np.uint8


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_byte_round_trips(kind):
    text = bytes(range(256)) * 3 + b"\r\n\0"
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode(kind(text))) == text


def test_bytes_are_viewed_and_not_copied():
    text = b"abcde"
    ids = ByteTokenizer().encode(text)
    assert np.shares_memory(ids, np.frombuffer(text, np.uint8))


def test_a_writable_buffer_is_copied():
    # Given ids of a bytearray, when the bytearray changes, the ids stay.
    buffer = bytearray(b"abc")
    ids = ByteTokenizer().encode(buffer)
    buffer[0] = 0
    assert ids.tolist() == [97, 98, 99]


def test_nothing_encodes_to_nothing():
    tokenizer = ByteTokenizer()
    assert tokenizer.encode(b"").shape == (0,)
    assert tokenizer.decode([]) == b""


def test_a_byte_outside_the_vocabulary_is_named_with_its_offset():
    message = (
        r"^byte 195 at offset 2 is outside the vocabulary; allowed are 0 to "
        r"127 \(vocab_size=128\)$"
    )
    with pytest.raises(ValueError, match=message):
        ByteTokenizer(vocab_size=128).encode("abé é")


def test_the_last_byte_of_the_vocabulary_is_allowed():
    assert ByteTokenizer(vocab_size=99).encode(b"ab").tolist() == [97, 98]


@pytest.mark.parametrize(
    ("ids", "first", "index"),
    [([1, 2, 3, 97, 0], 3, 2), ([0, 3, 2], 3, 1), ([2, -1, 7], -1, 1)],
)
def test_the_first_id_outside_the_vocabulary_is_named(ids, first, index):
    message = f"^id {first} at index {index} is outside .* 0 to 2 "
    with pytest.raises(ValueError, match=message):
        ByteTokenizer(vocab_size=3).decode(ids)


def test_decode_takes_any_integers_of_one_dimension():
    tokenizer = ByteTokenizer()
    for dtype in (np.uint8, np.int32, np.int64):
        assert tokenizer.decode(np.array([72, 105], dtype)) == b"Hi"
    with pytest.raises(ValueError, match=r"one-dimensional, got .*\(1, 2\)"):
        tokenizer.decode([[72, 105]])
    with pytest.raises(ValueError, match="integers, got dtype float64"):
        tokenizer.decode([72.0])


def test_encode_refuses_what_is_not_text():
    with pytest.raises(TypeError, match="bytes or str, got list"):
        ByteTokenizer().encode([1, 2])


@pytest.mark.parametrize("vocab_size", [0, -1, 257, 2.0, "256", None, True])
def test_a_wrong_vocabulary_size_is_refused(vocab_size):
    with pytest.raises(ValueError, match="vocab_size .* 1 to 256, got") as info:
        ByteTokenizer(vocab_size=vocab_size)
    assert repr(vocab_size) in str(info.value)


def test_the_config_makes_the_same_tokenizer():
    config = ByteTokenizer(vocab_size=131).get_config()
    assert config == {"type": "bytes", "vocab_size": 131}
    assert tokenizer_from_config(config).get_config() == config
