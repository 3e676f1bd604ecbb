"""Parameters that are counted are the published ones, and the model's own."""

import pytest

import official_lrm as lrm
from official_lrm.models.parameter_count import count_parameters

ENWIK8 = {
    "vocab_size": 204,
    "hidden_size": 1024,
    "num_heads": 8,
    "head_size": 128,
    "inner_size": 3072,
}
WIKITEXT103 = {
    "vocab_size": 267_735,
    "hidden_size": 1024,
    "num_heads": 16,
    "head_size": 64,
    "inner_size": 4096,
    "untie_biases": True,
    "cutoffs": (20_000, 40_000, 200_000),
    "div_value": 4,
}
# Pairwise distinct, so that no two can change places.
SIZES = {
    "vocab_size": 31,
    "hidden_size": 14,
    "num_heads": 3,
    "head_size": 5,
    "inner_size": 17,
}


@pytest.mark.parametrize(
    ("num_layers", "arguments", "published"),
    [
        (24, ENWIK8, 277_231_820),
        (18, WIKITEXT103, 285_205_322),
        (
            12,
            {**ENWIK8, "hidden_size": 512, "head_size": 64, "inner_size": 2048},
            41_055_436,
        ),
        (
            16,
            {
                "vocab_size": 267_735,
                "hidden_size": 410,
                "num_heads": 10,
                "head_size": 41,
                "inner_size": 2100,
                "untie_biases": True,
                "cutoffs": (20_000, 40_000, 200_000),
            },
            151_119_838,
        ),
    ],
    ids=["enwik8 24", "WikiText-103 18", "enwik8 12", "WikiText-103 base"],
)
def test_published_models(num_layers, arguments, published):
    assert count_parameters(num_layers, **arguments) == published


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"untie_biases": True},
        {"embedding_size": 6},
        {"tie_embeddings": False, "embedding_size": 6},
        {"cutoffs": (5, 11)},
        {"cutoffs": (5, 11), "div_value": 2},
        {"cutoffs": (5, 11), "embedding_size": 6, "share_projections": False},
        {"div_value": 2},
        {
            "cutoffs": (5, 11),
            "div_value": 2,
            "embedding_size": 12,
            "tie_embeddings": False,
            "share_projections": False,
        },
    ],
    ids=str,
)
def test_they_are_the_models_own(arguments):
    model = lrm.TransformerXLLanguageModel(
        spans=(5, 0), **SIZES, **arguments, dropout=0.1, attend_to_empty=True
    )
    trainable = sum(
        w.value.shape.num_elements() for w in model.trainable_weights
    )
    assert count_parameters(2, **SIZES, **arguments) == trainable
    # A model's config says what it takes.
    assert count_parameters(2, **model.get_config()) == trainable
