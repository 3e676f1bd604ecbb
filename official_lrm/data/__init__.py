"""Text in, lanes of token ids out: corpora, tokenizers, contiguous lanes.

    corpus = load_corpus("python_stdlib")
    tokens = ByteTokenizer().encode(corpus.split("train"))
    lanes = TrainingLanes(tokens, num_lanes=8, segment_length=128)
    for batch in lanes.dataset():
        ...  # {"tokens": [8, 128], "targets": [8, 128], "reset": [8]}

Nothing here knows a model, and importing this package does not import
TensorFlow: only the `dataset` methods do.
"""

from official_lrm.data.byte_tokenizer import ByteTokenizer
from official_lrm.data.corpora import Corpus, corpus_names, load_corpus
from official_lrm.data.lanes import EvaluationLanes, TrainingLanes
from official_lrm.data.symbol_tokenizer import SymbolTokenizer
from official_lrm.data.tokenizers import (
    TOKENIZER_TYPES,
    load_tokenizer,
    tokenizer_from_config,
    tokenizer_of_model,
)

__all__ = [
    "TOKENIZER_TYPES",
    "ByteTokenizer",
    "Corpus",
    "EvaluationLanes",
    "SymbolTokenizer",
    "TrainingLanes",
    "corpus_names",
    "load_corpus",
    "load_tokenizer",
    "tokenizer_from_config",
    "tokenizer_of_model",
]
