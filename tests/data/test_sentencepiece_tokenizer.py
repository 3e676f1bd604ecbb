"""Tests of the tokenizer of pieces."""

import base64
import io
import json
import lzma
import pathlib
import random
import sys

import numpy as np
import pytest
import sentencepiece

from official_lrm.data import SentencePieceTokenizer, tokenizer_from_config
from official_lrm.data import sentencepiece_tokenizer as module

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
SIZE = 400


def make_text(num_words=5003, seed=7):
    """Words of a few syllables, lines and double spaces."""
    rng = random.Random(seed)
    syllables = [
        rng.choice("bcdfgklmnprst") + rng.choice("aeiouäé") for _ in range(53)
    ]
    words = []
    for _ in range(num_words):
        size = rng.randrange(1, 5)
        words.append("".join(rng.choice(syllables) for _ in range(size)))
        words.append(rng.choice(["\n", "  ", *[" "] * 7]))
    return "".join(words).encode()


TEXT = make_text()


@pytest.fixture(scope="module")
def tokenizer():
    return SentencePieceTokenizer.learn([TEXT], SIZE)


def train(**changes):
    """A model as the package makes it, with other settings than ours."""
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.decode().split("\n")),
        model_writer=stream,
        minloglevel=2,
        **{"vocab_size": SIZE, **changes},
    )
    return stream.getvalue()


class TestLearn:
    def test_there_are_as_many_ids_as_asked_for(self, tokenizer):
        assert tokenizer.vocab_size == SIZE
        ids = tokenizer.encode(TEXT)
        assert ids.dtype == np.uint16
        assert ids.max() < SIZE
        # Pieces, not bytes.
        assert ids.size < 0.6 * len(TEXT)

    def test_the_same_text_gives_the_same_pieces(self, tokenizer):
        # However it is cut.
        pieces = [TEXT[start : start + 101] for start in range(0, 99999, 101)]
        again = SentencePieceTokenizer.learn(iter(pieces), SIZE)
        assert again.get_config() == tokenizer.get_config()
        other = SentencePieceTokenizer.learn([make_text(seed=8)], SIZE)
        assert other.get_config() != tokenizer.get_config()

    def test_no_more_of_a_text_is_read_than_asked_for(self, tokenizer):
        def pieces():
            yield TEXT
            yield from ([make_text(seed=8)] * 2)
            raise AssertionError("it reads on")

        again = SentencePieceTokenizer.learn(pieces(), SIZE, len(TEXT))
        assert again.get_config() == tokenizer.get_config()

    def test_a_long_line_is_learnt_from(self):
        line = TEXT.replace(b"\n", b" ") * 40
        assert len(line) > 2**20
        tokenizer = SentencePieceTokenizer.learn([line], SIZE)
        assert tokenizer.encode(TEXT).size < 0.6 * len(TEXT)

    def test_a_text_may_hold_anything(self):
        text = TEXT + bytes(range(256)) * 3 + "\u2581\x01\u2047 \ufffd".encode()
        tokenizer = SentencePieceTokenizer.learn([text], SIZE)
        assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT

    @pytest.mark.parametrize(
        ("text", "size", "expected"),
        [
            (
                b"the cat the hat",
                5003,
                r"at most \d+ for this text.* got 5003$",
            ),
            (TEXT, 265, r"at least \d+ for the characters of.*, got 265$"),
            (b"", 300, "text must hold at least one character .* got none$"),
            (
                b"\n\n",
                300,
                "text must hold at least one character .* got none$",
            ),
            (b"\0", 300, "text must hold at least one character .* got none$"),
            (TEXT, 258, "^vocab_size must be an integer of at least 259, got"),
            (TEXT, 400.0, "^vocab_size must be an integer .* got 400.0$"),
            (TEXT, True, "^vocab_size must be an integer .* got True$"),
            (TEXT, None, "^vocab_size must be an integer .* got None$"),
        ],
    )
    def test_what_a_text_does_not_support_is_refused(
        self, text, size, expected
    ):
        with pytest.raises(ValueError, match=expected) as caught:
            SentencePieceTokenizer.learn([text], size)
        message = str(caught.value)
        assert "\n" not in message
        assert ".cc" not in message

    def test_it_tells_the_most_that_a_text_supports(self):
        with pytest.raises(ValueError) as caught:
            SentencePieceTokenizer.learn([b"the cat the hat"], 5003)
        most = int(str(caught.value).split("at most ")[1].split()[0])
        tokenizer = SentencePieceTokenizer.learn([b"the cat the hat"], most)
        assert tokenizer.vocab_size == most

    @pytest.mark.parametrize("size", [0, -1, 1.5, None])
    def test_a_wrong_number_of_bytes_is_refused(self, size):
        with pytest.raises(ValueError, match="^max_bytes .* at least 1, got"):
            SentencePieceTokenizer.learn([TEXT], SIZE, size)


class TestEncode:
    def test_ids_are_of_pieces_and_of_bytes_where_there_is_none(self):
        tokenizer = SentencePieceTokenizer.learn([b"the cat the hat"], 270)
        ids = tokenizer.encode("the hat é")
        texts = [tokenizer.decode([index]) for index in ids]
        assert texts == [b"the", b" h", b"at", b" ", b"\xc3", b"\xa9"]
        assert ids.dtype == np.uint16

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "\n",
            " ",
            "a",
            "  two  spaces \n\n and lines\r\n at\tthe end \n ",
            "no such letters: 日本 🙂 \u00a0\u2028\ufeff",
            "\0\0 \x01 \x01\x01\x02\x02 \x01\u2581\u2581\x02\u2581 \x01",
            "<unk> <s> </s> <0x41> \u2047 \u2585 \ufffd",
            "e\u0301 é ﬁ ½ ＡＢ",
        ],
        ids=ascii,
    )
    def test_every_text_comes_back(self, tokenizer, text):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text.encode()

    def test_a_line_end_is_a_byte_of_its_own(self, tokenizer):
        (end,) = tokenizer.encode("\n")
        assert tokenizer.decode([end]) == b"\n"
        ids = tokenizer.encode(TEXT)
        assert np.sum(ids == end) == TEXT.count(b"\n")

    def test_what_is_no_utf8_becomes_replacement_characters(self, tokenizer):
        for text, expected in (
            (b"a\xffb", "a\ufffdb"),
            (b"a\xe6\x97", "a\ufffd\ufffd"),
            (b"\xc3 \xa9\n", "\ufffd \ufffd\n"),
        ):
            assert tokenizer.decode(tokenizer.encode(text)) == expected.encode()

    @pytest.mark.parametrize("size", [1, 7, 101])
    def test_where_a_text_is_cut_does_not_matter(
        self, tokenizer, monkeypatch, size
    ):
        text = TEXT[:3001] + "  \x01 \u2581 \n 日本\n".encode() + TEXT[:1009]
        whole = tokenizer.encode_tensor([text]).flat_values.numpy()
        monkeypatch.setattr(module, "_TEXT_SIZE", size)
        monkeypatch.setattr(module, "_ENCODED_AT_ONCE", 7 * size)
        np.testing.assert_array_equal(tokenizer.encode(text), whole)

    def test_what_is_no_text_is_refused(self, tokenizer):
        with pytest.raises(TypeError, match="bytes or str, got list"):
            tokenizer.encode([97])


class TestConfig:
    def test_it_makes_the_same_tokenizer(self, tokenizer):
        config = json.loads(json.dumps(tokenizer.get_config()))
        assert config.keys() == {"type", "model"}
        assert config["type"] == "sentencepiece"
        read = tokenizer_from_config(config)
        assert read.get_config() == config
        np.testing.assert_array_equal(read.encode(TEXT), tokenizer.encode(TEXT))

    @pytest.mark.parametrize("model", [None, 7, "", "é", "AAA", "====", ["AA"]])
    def test_what_is_no_base64_is_refused(self, model):
        self.refuse(model)

    @pytest.mark.parametrize("cut", [1, 1009, -1, -1009])
    def test_a_part_of_a_model_is_refused(self, tokenizer, cut):
        model = base64.b64decode(tokenizer.get_config()["model"])[:cut]
        self.refuse(base64.b64encode(model).decode())

    def test_damage_anywhere_is_refused_or_harmless(self, tokenizer):
        model = base64.b64decode(tokenizer.get_config()["model"])
        rng = random.Random(11)
        refused = 0
        for _ in range(101):
            damaged = bytearray(model)
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            try:
                tokenizer_from_config(
                    {
                        "type": "sentencepiece",
                        "model": base64.b64encode(damaged).decode(),
                    }
                )
            except ValueError as error:
                assert "\n" not in str(error)
                refused += 1
        assert refused > 10

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"byte_fallback": True},
            {"byte_fallback": True, "normalization_rule_name": "identity"},
        ],
        ids=len,
    )
    def test_a_model_that_does_not_keep_texts_is_refused(self, changes):
        with pytest.raises(ValueError, match="^the SentencePiece model must k"):
            SentencePieceTokenizer(train(**changes))

    @staticmethod
    def refuse(model):
        with pytest.raises(ValueError) as caught:
            tokenizer_from_config({"type": "sentencepiece", "model": model})
        message = str(caught.value)
        assert message.startswith("model must be a SentencePiece model in")
        assert "\n" not in message
        assert len(message) < 300


def test_without_tensorflow_text_the_error_says_what_is_needed(
    tokenizer, monkeypatch
):
    # As if it were not installed.
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    read = tokenizer_from_config(tokenizer.get_config())
    assert read.decode(tokenizer.encode("a")) == b"a"
    message = r"needs tensorflow_text \(pip install tensorflow-text\)"
    with pytest.raises(ImportError, match=message):
        read.encode("a")
    with pytest.raises(ImportError, match=message):
        read.encode_tensor(["a"])


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs WikiText-2")
def test_wikitext_2_comes_back():
    texts = {}
    for split in ("train", "valid"):
        with lzma.open(SHARED / f"wikitext-2.{split}.tokens.xz") as stream:
            texts[split] = stream.read()
    tokenizer = SentencePieceTokenizer.learn([texts["train"]], 8000)
    assert tokenizer.vocab_size == 8000
    ids = tokenizer.encode(texts["valid"])
    assert tokenizer.decode(ids) == texts["valid"]
    assert ids.size < len(texts["valid"]) / 3.5
