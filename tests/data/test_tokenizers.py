"""Tests of what makes tokenizers of what was stored of them."""

import io
import json

import pytest

from official_lrm.data import (
    TOKENIZER_TYPES,
    ByteTokenizer,
    SentencePieceTokenizer,
    SymbolTokenizer,
    WordTokenizer,
    load_tokenizer,
    tokenizer_from_config,
    tokenizer_of_model,
)

ALL = (
    ByteTokenizer(131),
    SymbolTokenizer(b"ba\n"),
    WordTokenizer(["<eos>", "né", "<unk>"]),
    SentencePieceTokenizer.learn([b"the cat the hat"], 270),
)
IDS = ("bytes", "symbols", "words", "sentencepiece")


def test_each_type_has_a_tokenizer():
    kinds = tuple(tokenizer.get_config()["type"] for tokenizer in ALL)
    assert kinds == TOKENIZER_TYPES == IDS
    assert kinds == tuple(tokenizer.type for tokenizer in ALL)


@pytest.mark.parametrize("tokenizer", ALL, ids=IDS)
def test_a_file_makes_the_same_tokenizer(tmp_path, tokenizer):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(tokenizer.get_config()))
    read = load_tokenizer(path)
    assert type(read) is type(tokenizer)
    assert read.get_config() == tokenizer.get_config()


def test_a_file_may_be_anywhere():
    text = json.dumps(ALL[1].get_config())
    opened = []
    read = load_tokenizer(
        "far://away", lambda path: opened.append(path) or io.StringIO(text)
    )
    assert opened == ["far://away"]
    assert read.decode([1, 0]) == b"ab"


def test_there_may_be_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"",
        b"\xff",
        b"[" * 10**5,
        b"[]",
        b"{}",
        b'"bytes"',
        b'{"type": "words"}',
        b'{"type": ["bytes"]}',
        b'{"type": {"symbols": [1]}}',
        b'{"type": "bytes"}',
        b'{"type": "bytes", "vocab_size": 999}',
        b'{"type": "symbols"}',
        b'{"type": "symbols", "symbols": [1, 1]}',
        b'{"type": "symbols", "symbols": [1e999]}',
        b'{"type": "words", "words": "<eos> <unk>"}',
        b'{"type": "words", "words": ["<eos>", "<unk>", "\\ud800"]}',
        b'{"type": "sentencepiece"}',
        b'{"type": "sentencepiece", "model": ""}',
        b'{"type": "sentencepiece", "model": "AAAA"}',
    ],
    ids=lambda content: content[:40].decode(errors="replace"),
)
def test_a_file_of_no_tokenizer_is_refused_by_name(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        load_tokenizer(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message


def test_an_unknown_type_is_named_with_those_allowed():
    with pytest.raises(ValueError) as error:
        tokenizer_from_config({"type": "letters", "words": ["a"] * 10**6})
    message = str(error.value)
    assert "'bytes', 'symbols', 'words', 'sentencepiece'" in message
    assert "'letters'" in message
    assert len(message) < 300


class TestOfModel:
    @pytest.mark.parametrize("size", [3, 4, 256])
    def test_it_may_have_fewer_ids_than_the_model(self, size):
        tokenizer = ALL[1]
        assert tokenizer_of_model(tokenizer, size, "runs/a") is tokenizer

    def test_it_may_not_have_more(self):
        with pytest.raises(ValueError, match="^runs/a holds .* 3 ids.* 2 of"):
            tokenizer_of_model(ALL[1], 2, "runs/a")

    def test_without_one_256_ids_are_bytes(self):
        config = tokenizer_of_model(None, 256, "runs/a").get_config()
        assert config == {"type": "bytes", "vocab_size": 256}

    @pytest.mark.parametrize("size", [1, 204, 255, 257, 267_735])
    def test_without_one_others_are_not_known(self, size):
        message = f"^runs/a holds no tokenizer .*its {size} ids are not"
        with pytest.raises(ValueError, match=message):
            tokenizer_of_model(None, size, "runs/a")
