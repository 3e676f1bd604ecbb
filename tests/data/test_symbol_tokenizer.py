"""Tests of the tokenizer of a text's symbols."""

import collections
import json
import random
import tracemalloc

import numpy as np
import pytest

from official_lrm.data import SymbolTokenizer, symbol_tokenizer
from official_lrm.data import tokenizer_from_config as from_config

ALL = bytes(range(256))


def symbols_of(text):
    return bytes(SymbolTokenizer.learn([text]).get_config()["symbols"])


class TestLearn:
    def test_the_commonest_come_first_and_the_first_of_equals(self):
        assert symbols_of(b"banana\n") == b"anb\n"
        assert symbols_of(b"\nzzyyx") == b"zy\nx"

    def test_every_byte_counts(self):
        # Dai et al. (2019) drop newlines; 0 and 255 are bytes like others.
        text = b"\n\n\n\xff\xff\0"
        assert symbols_of(text) == b"\n\xff\0"
        assert SymbolTokenizer.learn([text]).vocab_size == 3

    @pytest.mark.parametrize("at_once", [1, 101, 2**20])
    def test_it_is_the_order_of_a_counter(self, monkeypatch, at_once):
        monkeypatch.setattr(symbol_tokenizer, "_COUNTED_AT_ONCE", at_once)
        rng = random.Random(5)
        # So few of each that many are as common.
        text = bytes(int(rng.expovariate(1 / 40)) % 256 for _ in range(1009))
        counted = collections.Counter(text).most_common()
        assert len({count for _, count in counted}) < len(counted) / 2
        assert list(symbols_of(text)) == [symbol for symbol, _ in counted]

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_any_bytes_will_do(self, kind):
        assert symbols_of(kind(b"abb")) == b"ba"

    def test_a_str_is_utf8(self):
        assert symbols_of("éé") == b"\xc3\xa9"

    def test_nothing_holds_no_symbols(self):
        for pieces in ([], [b""], iter([b"", b""])):
            with pytest.raises(ValueError, match="at least one byte to learn"):
                SymbolTokenizer.learn(pieces)

    def test_the_text_may_be_cut_anywhere(self):
        pieces = [b"", b"zy", b"y", b"", b"xxz", b"wz"]
        learnt = SymbolTokenizer.learn(iter(pieces))
        assert bytes(learnt.get_config()["symbols"]) == b"zyxw"

    @pytest.mark.parametrize("text", [b"ab", bytearray(b"ab"), "ab"])
    def test_a_text_is_no_iterable_of_pieces(self, text):
        message = rf"such as \[text\], got {type(text).__name__}$"
        with pytest.raises(TypeError, match=message):
            SymbolTokenizer.learn(text)
        with pytest.raises(TypeError, match="bytes or str, got int"):
            SymbolTokenizer.learn([97])


class TestEncode:
    def test_an_id_is_the_place_among_the_symbols(self):
        ids = SymbolTokenizer(b"anb\n").encode(b"nab\na")
        assert ids.tolist() == [1, 0, 2, 3, 0]
        assert ids.dtype == np.uint8

    @pytest.mark.parametrize("size", [1, 2, 27, 205, 255, 256])
    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_it_round_trips(self, size, kind):
        symbols = bytes(random.Random(size).sample(ALL, size))
        tokenizer = SymbolTokenizer(symbols)
        assert tokenizer.vocab_size == size
        text = symbols * 3 + symbols[::-1]
        ids = tokenizer.encode(kind(text))
        assert ids.tolist() == 3 * [*range(size)] + [*range(size)][::-1]
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode(ids.astype("int64")) == text

    def test_nothing_encodes_to_nothing(self):
        tokenizer = SymbolTokenizer(b"a")
        assert tokenizer.encode(b"").shape == (0,)
        assert tokenizer.decode([]) == b""

    @pytest.mark.parametrize("size", [1, 27, 255])
    def test_another_byte_is_named_with_its_offset(self, size):
        symbols = bytes(random.Random(size).sample(ALL, size))
        others = sorted(set(ALL) - set(symbols))
        for other in (others[0], others[-1]):
            message = (
                f"^byte {other} at offset 3 is none of the {size} symbols of "
                "the vocabulary$"
            )
            text = symbols[:1] * 3 + bytes([other, others[0]])
            with pytest.raises(ValueError, match=message):
                SymbolTokenizer(symbols).encode(text)

    def test_what_is_no_text_is_refused(self):
        with pytest.raises(TypeError, match="bytes or str, got list"):
            SymbolTokenizer(b"a").encode([97])

    def test_memory_is_that_of_the_text(self):
        text = b"abcdefgh" * 2**20
        tracemalloc.start()
        try:
            tokenizer = SymbolTokenizer.learn([text])
            _, learnt = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            ids = tokenizer.encode(text)
            _, encoded = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert ids.size == len(text)
        # Of the parts that are counted: 8 bytes for each of theirs.
        assert learnt < 8 * 2**20 * 1.1
        assert encoded < len(text) * 1.1


class TestVocabularyFile:
    def test_numbers_of_bytes_are_read(self, tmp_path):
        # As Dai et al. write those of enwik8.
        path = tmp_path / "vocabulary.txt"
        path.write_bytes(b"32\n101\n10\n0\n255\n")
        tokenizer = SymbolTokenizer.from_vocabulary_file(path)
        assert tokenizer.get_config()["symbols"] == [32, 101, 10, 0, 255]

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"32\n_\n", "0 to 255 on each line, got '_' on line 2"),
            (b"32\n-1\n", "got '-1' on line 2"),
            (b"1e1\n", "got '1e1' on line 1"),
            ("٣\n".encode(), "got '٣' on line 1"),
            (b"9" * 10**5, "on line 1"),
            (b"32\n256\n", "0 to 255, got 256 at index 1"),
            (b"32\n032\n", "distinct, got 32 at index 0 and at index 1"),
            (b"", "got no line"),
        ],
        ids=lambda value: repr(value)[:19],
    )
    def test_what_is_refused(self, tmp_path, content, expected):
        path = tmp_path / "vocabulary.txt"
        path.write_bytes(content)
        with pytest.raises(ValueError) as caught:
            SymbolTokenizer.from_vocabulary_file(path)
        message = str(caught.value)
        assert message.startswith(str(path))
        assert expected in message
        assert "\n" not in message
        assert len(message) < 300


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([1, 2, 3, 97, 0], ("id 3 at index 2", "0 to 2")),
        ([0, 3], ("id 3 at index 1",)),
        ([2, -1, 7], ("id -1 at index 1",)),
        ([300, 0], ("id 300 at index 0",)),
        ([[0, 1]], ("one-dimensional", "(1, 2)")),
        ([1.0], ("integers", "float64")),
    ],
    ids=str,
)
def test_decode_refuses_what_is_no_id(ids, words):
    with pytest.raises(ValueError) as error:
        SymbolTokenizer(b"abc").decode(ids)
    for word in words:
        assert word in str(error.value)


class TestSkippedNewlines:
    def test_they_have_no_id(self):
        learnt = SymbolTokenizer.learn([b"na\nb", b"\nana\n"], True)
        assert learnt.get_config()["symbols"] == list(b"anb")
        ids = learnt.encode(b"\nba\n\nn")
        assert ids.tolist() == [2, 0, 1]
        assert learnt.decode(ids) == b"ban"
        assert learnt.encode(b"\n\n").tolist() == []
        again = from_config(learnt.get_config())
        assert again.get_config() == learnt.get_config()
        tensor = again.encode_tensor([b"\nba\n\nn", b"\n"])
        assert tensor.to_list() == [[2, 0, 1], []]

    def test_other_bytes_are_refused_still(self):
        with pytest.raises(ValueError, match="^byte 120 at offset 1 is none"):
            SymbolTokenizer(b"ab", skip_newlines=True).encode(b"\na\nx")

    @pytest.mark.parametrize("value", [1, None, "yes"])
    def test_it_must_be_a_bool(self, value):
        with pytest.raises(ValueError, match="^skip_newlines must be True or"):
            SymbolTokenizer(b"ab", value)

    def test_a_newline_must_not_be_a_symbol(self):
        with pytest.raises(ValueError, match="^symbols must not hold 10"):
            SymbolTokenizer(b"a\n", skip_newlines=True)

    def test_a_published_vocabulary_has_none(self, tmp_path):
        path = tmp_path / "vocabulary.txt"
        for lines, skips in (("97\n98\n", True), ("97\n10\n", False)):
            path.write_text(lines)
            read = SymbolTokenizer.from_vocabulary_file(path)
            assert read.get_config()["skip_newlines"] == skips


class TestConfig:
    def test_it_makes_the_same_tokenizer(self):
        config = SymbolTokenizer(b"ne\n\xff").get_config()
        assert config == {
            "type": "symbols",
            "symbols": [110, 101, 10, 255],
            "skip_newlines": False,
        }
        read = from_config(json.loads(json.dumps(config)))
        assert read.get_config() == config
        assert read.encode(b"\xff\nn").tolist() == [3, 2, 0]

    @pytest.mark.parametrize("kind", [list, tuple, bytes, np.array])
    def test_symbols_come_as_any_sequence(self, kind):
        symbols = SymbolTokenizer(kind([7, 5, 11])).get_config()["symbols"]
        assert symbols == [7, 5, 11]
        assert {type(symbol) for symbol in symbols} == {int}

    @pytest.mark.parametrize(
        ("symbols", "words"),
        [
            ([], ("symbols", "at least one")),
            ([97, 98, 97], ("distinct", "97", "0 and at index 2")),
            ([97, 256], ("0 to 255", "256 at index 1")),
            ([-1], ("0 to 255", "-1 at index 0")),
            ([97, 98.0], ("98.0 at index 1",)),
            ([97, "b"], ("'b' at index 1",)),
            ([True], ("True at index 0",)),
            ([None], ("None at index 0",)),
            ([[97]], ("[97] at index 0",)),
            ("ab", ("list", "'ab'")),
            ({"97": 0}, ("list", "{'97': 0}")),
            (97, ("list", "97")),
            (None, ("list", "None")),
            (ALL + b"a", ("distinct", "97 and at index 256")),
            ("a" * 10**6, ("list",)),
        ],
        ids=lambda value: repr(value)[:19],
    )
    def test_damage_is_named(self, symbols, words):
        with pytest.raises(ValueError) as error:
            from_config({"type": "symbols", "symbols": symbols})
        message = str(error.value)
        for word in words:
            assert word in message
        assert "\n" not in message
        assert len(message) < 200
