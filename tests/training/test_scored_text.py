"""Bytes and words of just the targets, counted by hand."""

import numpy as np
import pytest

from official_lrm.data import ByteTokenizer, SymbolTokenizer, TokenizedSplit
from official_lrm.data.sentencepiece_tokenizer import SentencePieceTokenizer
from official_lrm.data.word_tokenizer import WordTokenizer
from official_lrm.training import ScoredText

TEXT = b"the cat\n\nsat  on\tthe m\xc3\xa4t \n"


def split_of(tokenizer, text, starts=(0,)):
    return TokenizedSplit(tokenizer.encode(text), np.array(starts, np.int64))


@pytest.mark.parametrize(
    ("count", "num_bytes", "num_words"),
    [
        (None, 26, 6 + 3),  # he cat sat on the mät, and three line feeds
        (1, 1, 1),  # h
        (3, 3, 1),  # "he "
        (4, 4, 2),  # "he c": a word that is cut is one
        (7, 7, 3),  # "he cat\n"
        (8, 8, 4),
        (9, 9, 5),  # "he cat\n\ns"
    ],
)
def test_characters_by_hand(count, num_bytes, num_words):
    tokenizer = ByteTokenizer()
    cut = split_of(tokenizer, TEXT).first_targets(count)
    text = ScoredText.measure(cut, tokenizer, "test", 101)
    assert (text.num_bytes, text.num_words) == (num_bytes, num_words)
    assert text.num_tokens == num_bytes
    assert (text.unit, text.split, text.split_tokens) == (
        "character",
        "test",
        101,
    )


@pytest.fixture(scope="module")
def pieces():
    return SentencePieceTokenizer.learn([TEXT * 5], 280)


@pytest.mark.parametrize("at_once", [1, 2, 3, 5, 7, 1000])
@pytest.mark.parametrize("kind", ["bytes", "symbols", "words", "pieces"])
def test_blocks_cut_nothing_twice(kind, at_once, pieces):
    tokenizer = {
        "bytes": ByteTokenizer(),
        "symbols": SymbolTokenizer.learn([TEXT]),
        "words": WordTokenizer.learn([TEXT]),
        "pieces": pieces,
    }[kind]
    cut = split_of(tokenizer, TEXT * 3)
    whole = tokenizer.decode(cut.tokens)
    targets = whole[len(tokenizer.decode(cut.tokens[:1])) :]

    text = ScoredText.measure(cut, tokenizer, tokens_at_once=at_once)

    assert text.num_bytes == len(targets)
    assert text.num_words == len(targets.split()) + targets.count(b"\n")
    assert text.unit == tokenizer.unit


def test_a_text_of_words_has_as_many_words_as_targets():
    """So its perplexity is its perplexity per word."""
    tokenizer = WordTokenizer.learn([b"the cat\nsat on the"])
    text = ScoredText.measure(split_of(tokenizer, TEXT), tokenizer)
    # cat <eos> <eos> sat on the <unk> <eos>
    assert text.num_words == text.num_tokens == 8
    # " cat\n\nsat on the <unk>\n"
    assert text.num_bytes == 23
    assert text.unit == "word"


def test_documents_without_an_input_do_not_count():
    tokenizer = ByteTokenizer()
    cut = split_of(tokenizer, TEXT, [0, 3, 9, len(TEXT) - 1])
    assert ScoredText.measure(cut, tokenizer).documents == 3
    for count, documents in ((2, 1), (3, 1), (4, 2), (9, 2), (10, 3)):
        text = ScoredText.measure(cut.first_targets(count), tokenizer)
        assert text.documents == documents


def test_no_target():
    cut = split_of(ByteTokenizer(), b"a")
    text = ScoredText.measure(cut, ByteTokenizer())
    assert (text.num_tokens, text.num_bytes, text.num_words) == (0, 0, 0)
