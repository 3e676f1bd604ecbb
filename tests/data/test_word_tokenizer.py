"""Tests of the tokenizer of words."""

import collections
import json
import lzma
import pathlib
import random
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.data import (
    WordTokenizer,
    tokenizer_from_config,
    word_tokenizer,
)

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
WORDS = ["<eos>", "a", "né", "<unk>", "b"]


def learnt(*pieces, **arguments):
    return WordTokenizer.learn(pieces, **arguments).get_config()["words"]


class TestLearn:
    def test_the_commonest_come_first_and_the_first_of_equals(self):
        text = b" c b a b \n a <unk> a \n d c \n"
        words = ["<eos>", "a", "c", "b", "<unk>", "d"]
        assert learnt(text) == words
        # <eos> is first however rare, and <unk> where it belongs.
        text = b"<unk> b <unk> a \n"
        assert learnt(text) == ["<eos>", "<unk>", "b", "a"]

    def test_what_stands_for_the_unknown_is_there(self):
        assert learnt(b"b a a") == ["<eos>", "a", "b", "<unk>"]
        assert learnt() == learnt(b"", b"\n") == ["<eos>", "<unk>"]

    def test_a_line_end_that_is_written_as_a_word_is_one(self):
        assert learnt(b"<eos> <eos> a a a") == ["<eos>", "a", "<unk>"]

    def test_words_may_be_cut_anywhere(self):
        text = "né the – cat\n日本 the né\n".encode()
        pieces = [text[index : index + 1] for index in range(len(text))]
        words = ["<eos>", "né", "the", "–", "cat", "日本", "<unk>"]
        assert learnt(text) == learnt(*pieces) == words

    def test_it_is_the_order_of_a_counter(self, monkeypatch):
        monkeypatch.setattr(word_tokenizer, "_SPLIT_AT_ONCE", 101)
        rng = random.Random(5)
        words = [f"w{int(rng.expovariate(1 / 40))}" for _ in range(1009)]
        text = " ".join(words).encode()
        counted = collections.Counter(words).most_common()
        assert len({count for _, count in counted}) < len(counted) / 2
        assert learnt(text)[1:-1] == [word for word, _ in counted]

    @pytest.mark.parametrize(
        ("size", "words"),
        [
            (2, "<eos> <unk>"),
            (3, "<eos> a <unk>"),
            (4, "<eos> a b <unk>"),
            (5, "<eos> a b c <unk>"),
            (6, "<eos> a b c <unk> d"),
            (7, "<eos> a b c <unk> d"),
        ],
    )
    def test_the_commonest_are_kept(self, size, words):
        text = b"a a a a b b b c c <unk> <unk> d"
        assert learnt(text, max_size=size) == words.split()

    @pytest.mark.parametrize(
        ("size", "words"),
        [
            (2, "<eos> <unk>"),
            (3, "<eos> a <unk>"),
            (4, "<eos> a b <unk>"),
            (5, "<eos> a b <unk>"),
        ],
    )
    def test_of_a_text_without_unknown_words(self, size, words):
        assert learnt(b"a a b\n", max_size=size) == words.split()

    def test_a_word_that_is_no_utf8_has_no_id(self):
        assert learnt(b"\xff a\xff \xff a") == ["<eos>", "a", "<unk>"]

    @pytest.mark.parametrize("size", [1, 0, -1, 2.0, "9", True])
    def test_a_wrong_size_is_refused(self, size):
        with pytest.raises(ValueError, match="^max_size .* at least 2") as info:
            WordTokenizer.learn([b"a"], max_size=size)
        assert str(info.value).endswith(f"got {size!r}")

    def test_a_text_is_no_iterable_of_pieces(self):
        with pytest.raises(TypeError, match=r"such as \[text\], got bytes"):
            WordTokenizer.learn(b"a b")


class TestEncode:
    def test_words_and_line_ends_have_ids(self):
        ids = WordTokenizer(WORDS).encode(" né a \n\n b né ")
        assert ids.tolist() == [2, 1, 0, 0, 4, 2]
        assert ids.dtype == np.uint8

    def test_what_is_no_word_is_unknown(self):
        ids = WordTokenizer(WORDS).encode(b"c A aa n\xc3 \xff \0 a\0 <eos>")
        assert ids.tolist() == [3, 3, 3, 3, 3, 3, 3, 0]

    def test_ascii_white_space_only_is_between_words(self):
        ids = WordTokenizer(WORDS).encode("a\tb\r\nb\x0ba\x0cb a\u00a0b a\x1cb")
        assert ids.tolist() == [1, 4, 0, 4, 1, 4, 3, 3]

    def test_parts_of_a_text_make_the_text(self):
        tokenizer = WordTokenizer(WORDS)
        for first, second in ((b"a b ", b"a"), (b"a\n", b"b"), (b"", b"a")):
            parts = [*tokenizer.encode(first), *tokenizer.encode(second)]
            assert tokenizer.encode(first + second).tolist() == parts

    @pytest.mark.parametrize(
        ("size", "dtype"),
        [
            (256, "uint8"),
            (257, "uint16"),
            (65_536, "uint16"),
            (65_537, "int32"),
        ],
    )
    def test_ids_have_the_smallest_type(self, size, dtype):
        words = ["<eos>", "<unk>", *(f"w{i}" for i in range(2, size))]
        tokenizer = WordTokenizer(words)
        assert tokenizer.vocab_size == size
        ids = tokenizer.encode(f"w{size - 1} w2")
        assert ids.dtype == dtype
        assert ids.tolist() == [size - 1, 2]
        assert tokenizer.decode(ids) == f"w{size - 1} w2".encode()

    def test_a_line_is_no_list_of_its_words(self):
        text = "a b né ".encode() * 2**19
        tracemalloc.start()
        try:
            tokenizer = WordTokenizer.learn([text])
            ids = tokenizer.encode(text)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert ids.size == 3 * 2**19
        # Its ids, and a megabyte as words; as words at once, 80 MB.
        assert peak < 30e6

    def test_what_is_no_text_is_refused(self):
        with pytest.raises(TypeError, match="bytes or str, got list"):
            WordTokenizer(WORDS).encode([97])


class TestDecode:
    @pytest.mark.parametrize(
        ("ids", "text"),
        [
            ([], ""),
            ([0], "\n"),
            ([1], "a"),
            ([1, 2, 4], "a né b"),
            ([1, 0, 2], "a\nné"),
            ([0, 1, 0, 0, 3, 0], "\na\n\n<unk>\n"),
        ],
    )
    def test_one_space_is_between_words_and_none_beside_line_ends(
        self, ids, text
    ):
        assert WordTokenizer(WORDS).decode(ids) == text.encode()

    def test_the_end_of_a_line_may_have_any_id(self):
        tokenizer = WordTokenizer(["a", "<unk>", "<eos>"])
        assert tokenizer.encode("a\nc").tolist() == [0, 2, 1]
        assert tokenizer.decode([0, 2, 1]) == b"a\n<unk>"

    @pytest.mark.parametrize("ids", [[5], [-1], [0, 300]])
    def test_what_is_no_id_is_refused(self, ids):
        with pytest.raises(ValueError, match="is outside the vocab.* 0 to 4 "):
            WordTokenizer(WORDS).decode(ids)


class TestConfig:
    def test_it_makes_the_same_tokenizer(self):
        config = WordTokenizer(WORDS).get_config()
        assert config == {"type": "words", "words": WORDS}
        read = tokenizer_from_config(json.loads(json.dumps(config)))
        assert read.get_config() == config
        assert read.encode("né c").tolist() == [2, 3]

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (None, "a list of words, got None"),
            ("<eos> <unk>", "a list of words, got '<eos> <unk>'"),
            ({"<eos>": 0}, "a list of words, got {'<eos>': 0}"),
            ([], "words must have at least one word, got none"),
            (["<eos>", "<unk>", 7], "str, got 7 at index 2"),
            (["<eos>", "<unk>", None], "str, got None at index 2"),
            (["<eos>", "<unk>", ["a"]], "str, got ['a'] at index 2"),
            (["<eos>", ""], "not be empty, got '' at index 1"),
            (["<eos>", "a b"], "no white space and not be empty, got 'a b'"),
            (["<eos>", "a\n"], r"got 'a\n' at index 1"),
            (["<eos>", "\ud800"], r"Unicode, got '\ud800' at index 1"),
            (["a", "<unk>", "a"], "got 'a' at index 0 and at index 2"),
            (["a" * 10**6] * 2, "distinct, got 'aaa"),
        ],
        ids=lambda value: repr(value)[:25],
    )
    def test_damage_is_named(self, words, expected):
        with pytest.raises(ValueError) as caught:
            tokenizer_from_config({"type": "words", "words": words})
        message = str(caught.value)
        assert message.startswith("words must be") or "must have" in message
        assert expected in message
        assert "\n" not in message
        assert len(message) < 200


class TestVocabulariesOfOthers:
    def test_without_eos_a_line_feed_is_white_space(self):
        words = WordTokenizer(["<unk>", "a", "b"])
        ids = words.encode(b"a\nb c\n")
        assert ids.tolist() == [1, 2, 0]
        assert words.decode(ids) == b"a b <unk>"
        assert words.encode_tensor([b"a\nb c\n"]).to_list() == [[1, 2, 0]]

    def test_without_unk_an_unknown_word_is_refused(self):
        words = WordTokenizer(["a", "<eos>"])
        assert words.encode(b"a a\n").tolist() == [0, 0, 1]
        assert words.encode_tensor([b"a a\n"]).to_list() == [[0, 0, 1]]
        message = "^word b'b' is none of the 2 of the vocabulary, which has no"
        with pytest.raises(ValueError, match=message):
            words.encode(b"a b c")
        with pytest.raises(tf.errors.InvalidArgumentError, match="the 2 words"):
            words.encode_tensor([b"a", b"a b c"])


class TestVocabularyFile:
    def test_one_word_a_line(self, tmp_path):
        path = tmp_path / "vocabulary.txt"
        # Not ASCII's white space, and so no end of a word.
        words = [*WORDS, "a\u2028b", "c\x85", "\x1cd", "\u00a0"]
        path.write_text("".join(f"{word}\n" for word in words), newline="\n")
        read = WordTokenizer.from_vocabulary_file(path)
        assert read.get_config()["words"] == words

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"<eos>\n<unk>\n\n", "has an empty line 3"),
            (
                b"<eos>\n<unk>\na b\n",
                "one word on each line, got 'a b' on line 3",
            ),
            (b"<eos>\n <unk>\n", "got ' <unk>' on line 2"),
            (b"<eos>\n<unk>\na\nb\na\n", "'a' on the lines 3 and 5"),
            (b"<eos>\n<unk>\n\xff\n", r"not UTF-8: line 3 is b'\xff'"),
            (b"", "got no line"),
        ],
    )
    def test_what_is_refused(self, tmp_path, content, expected):
        path = tmp_path / "vocabulary.txt"
        path.write_bytes(content)
        with pytest.raises(ValueError) as caught:
            WordTokenizer.from_vocabulary_file(path)
        message = str(caught.value)
        assert message.startswith(str(path))
        assert expected in message
        assert "\n" not in message

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            WordTokenizer.from_vocabulary_file(tmp_path / "none.txt")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs WikiText-2")
def test_wikitext_2_has_its_published_numbers_of_words_and_tokens():
    texts = {}
    for split in ("train", "valid", "test"):
        with lzma.open(SHARED / f"wikitext-2.{split}.tokens.xz") as stream:
            texts[split] = stream.read()
    tokenizer = WordTokenizer.learn([texts["train"]])
    assert tokenizer.vocab_size == 33_278
    counts = {}
    for split, text in texts.items():
        ids = tokenizer.encode(text)
        counts[split] = ids.size
        again = tokenizer.encode(tokenizer.decode(ids))
        np.testing.assert_array_equal(again, ids)
    assert counts == {"train": 2_088_628, "valid": 217_646, "test": 245_569}
