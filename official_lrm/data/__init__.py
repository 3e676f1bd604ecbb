"""Text in, lanes of token ids out: corpora, tokenizers, contiguous lanes.

    corpus = load_corpus("python_stdlib")
    text = tokenize_split(corpus, "train", ByteTokenizer())
    lanes = TrainingLanes(text.tokens, num_lanes=8, segment_length=128)
    for batch in lanes.dataset():
        ...  # tokens, targets, weights [8, 128], reset [8]

Nothing here knows a model, and importing this package does not import
TensorFlow: only what works in graphs does, when it is called.
"""

from official_lrm.data.byte_tokenizer import ByteTokenizer
from official_lrm.data.corpora import Corpus, Piece, corpus_names, load_corpus
from official_lrm.data.lane_service import read_through_service
from official_lrm.data.lanes import EvaluationLanes, TrainingLanes
from official_lrm.data.sentencepiece_tokenizer import SentencePieceTokenizer
from official_lrm.data.symbol_tokenizer import SymbolTokenizer
from official_lrm.data.text_tokenizer import TextTokenizer
from official_lrm.data.token_cache import (
    TokenizedSplit,
    learn_tokenizer,
    tokenize_split,
)
from official_lrm.data.token_shards import TokenShards, write_shards
from official_lrm.data.tokenizers import (
    TOKENIZER_TYPES,
    load_tokenizer,
    tokenizer_from_config,
    tokenizer_of_model,
)
from official_lrm.data.word_tokenizer import WordTokenizer

__all__ = [
    "TOKENIZER_TYPES",
    "ByteTokenizer",
    "Corpus",
    "EvaluationLanes",
    "Piece",
    "SentencePieceTokenizer",
    "SymbolTokenizer",
    "TextTokenizer",
    "TokenShards",
    "TokenizedSplit",
    "TrainingLanes",
    "WordTokenizer",
    "corpus_names",
    "learn_tokenizer",
    "load_corpus",
    "load_tokenizer",
    "read_through_service",
    "tokenize_split",
    "tokenizer_from_config",
    "tokenizer_of_model",
    "write_shards",
]
