"""Text in, lanes of token ids out: corpora, tokenizers, contiguous lanes.

    corpus = load_corpus("python_stdlib")
    tokens = ByteTokenizer().encode(corpus.split("train"))
    lanes = TrainingLanes(tokens, num_lanes=8, segment_length=128)
    for batch in lanes.dataset():
        ...  # {"tokens": [8, 128], "targets": [8, 128], "reset": [8]}

Nothing here knows a model, and importing this package does not import
TensorFlow: only the `dataset` methods do.
"""

from official_lrm.data.corpora import Corpus, corpus_names, load_corpus
from official_lrm.data.lanes import EvaluationLanes, TrainingLanes
from official_lrm.data.tokenizers import (
    ByteTokenizer,
    load_tokenizer,
    tokenizer_from_config,
)

__all__ = [
    "ByteTokenizer",
    "Corpus",
    "EvaluationLanes",
    "TrainingLanes",
    "corpus_names",
    "load_corpus",
    "load_tokenizer",
    "tokenizer_from_config",
]
