"""Configs of the sources, and what is refused of them."""

import pytest

from official_lrm.checkpoints.source_config import read_source_config

CONFIG = {
    "vocab_size": 19,
    "n_layer": 3,
    "d_model": 14,
    "n_head": 3,
    "d_head": 5,
    "d_inner": 17,
    "mem_len": 11,
}


def read(share_projections=True, **changes):
    return read_source_config({**CONFIG, **changes}, share_projections)


def test_a_silent_config_has_the_references_defaults():
    config = read()
    assert config.num_layers == 3
    assert config.memory_length == 11
    assert config.untie_biases is None
    assert config.tied_projections == (False,)
    assert config.arguments == {
        "vocab_size": 19,
        "hidden_size": 14,
        "num_heads": 3,
        "head_size": 5,
        "inner_size": 17,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "clamp_length": None,
        "same_length": False,
        "cutoffs": [],
        "div_value": 1,
        "embedding_size": 14,
        "tie_embeddings": True,
        "share_projections": True,
        "layer_norm_epsilon": 1e-5,
        "initializer_stddev": 0.02,
        "projection_initializer_stddev": 0.01,
    }


@pytest.mark.parametrize(
    ("changes", "argument", "value"),
    [
        ({"n_token": 23, "vocab_size": None}, "vocab_size", 23),
        ({"d_embed": 9}, "embedding_size", 9),
        ({"d_embed": None}, "embedding_size", 14),
        ({"clamp_len": 7}, "clamp_length", 7),
        ({"clamp_len": 0}, "clamp_length", None),
        ({"clamp_len": -1}, "clamp_length", None),
        ({"same_length": True}, "same_length", True),
        ({"dropatt": 0.2}, "attention_dropout", 0.2),
        ({"div_val": 4}, "div_value", 4),
        ({"tie_weight": False}, "tie_embeddings", False),
        ({"tie_word_embeddings": False}, "tie_embeddings", False),
        ({"cutoffs": (5, 9)}, "cutoffs", (5, 9)),
        ({"layer_norm_epsilon": 1e-3}, "layer_norm_epsilon", 1e-3),
        ({"init_std": 0.005}, "initializer_stddev", 0.005),
        ({"architectures": ["x"], "adaptive": True}, "vocab_size", 19),
    ],
)
def test_fields(changes, argument, value):
    assert read(**changes).arguments[argument] == value


@pytest.mark.parametrize(
    ("changes", "tied", "shared"),
    [
        ({}, (False, True, True), True),
        ({"share_projections": False}, (False, False, False), False),
        ({"proj_share_all_but_first": False}, (False, False, False), False),
        ({"tie_projs": [True, True, True]}, (True, True, True), True),
        ({"tie_projs": [False, True, False]}, (False, True, False), False),
        # What Hugging Face saves decides.
        (
            {
                "tie_projs": [False, False, False],
                "proj_share_all_but_first": True,
            },
            (False, False, False),
            False,
        ),
    ],
)
def test_tied_projections(changes, tied, shared):
    config = read(cutoffs=[5, 9], **changes)
    assert config.tied_projections == tied
    assert config.arguments["share_projections"] is shared


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"n_layer": None}, "n_layer must be an integer of at least 1"),
        ({"n_layer": 0}, "n_layer must be an integer of at least 1; got 0"),
        ({"n_layer": "3"}, "got '3'"),
        ({"n_layer": 3.0}, "got 3.0"),
        ({"d_model": True}, "d_model must be"),
        ({"mem_len": -1}, "mem_len must be an integer of at least 0"),
        ({"clamp_len": "off"}, "clamp_len must be an integer; got 'off'"),
        ({"cutoffs": "5,9"}, "cutoffs must be a list of token ids"),
        ({"tie_projs": [False]}, "tie_projs must be a list of 3 bools"),
        ({"tie_projs": [0, 1, 1]}, "tie_projs must be a list of 3 bools"),
        ({"untie_r": "yes"}, "untie_r must be true or false"),
        ({"same_length": 1}, "same_length must be true or false; got 1"),
        ({"dropout": "0.1"}, "dropout must be a number"),
        ({"pre_lnorm": True}, "pre_lnorm must be False"),
        ({"attn_type": 2}, "attn_type must be 0"),
        ({"ext_len": 8}, "ext_len must be 0"),
        ({"sample_softmax": 100}, "sample_softmax must be off (-1)"),
    ],
)
def test_what_is_refused(changes, expected):
    changes = {"cutoffs": [5, 9], **changes}
    with pytest.raises(ValueError) as caught:
        read(**changes)
    message = str(caught.value)
    assert message.startswith("config ")
    assert "\n" not in message
    assert expected in message


def test_a_missing_field_is_named():
    for name in CONFIG:
        if name == "mem_len":  # Needed only where no spans are given.
            continue
        config = {key: value for key, value in CONFIG.items() if key != name}
        with pytest.raises(ValueError, match=f"config {name} .* got none"):
            read_source_config(config, share_projections=True)


def test_no_mapping():
    with pytest.raises(ValueError, match="mapping .* got str"):
        read_source_config("config.json", share_projections=True)
