"""Tests of presets whose vocabulary is in clusters, and of older ones."""

import json

import h5py
import numpy as np
import pytest

import official_lrm as lrm
from official_lrm.models.presets import load_preset_weights

Model = lrm.TransformerXLLanguageModel

ADAPTIVE = {"cutoffs": (5, 8), "div_value": 2}
CLUSTERED = [
    ADAPTIVE,
    {"cutoffs": (5, 8), "embedding_size": 23},
    {
        **ADAPTIVE,
        "embedding_size": 23,
        "tie_embeddings": False,
        "share_projections": False,
    },
]
# What config.json did not name before there were clusters.
NEW_ARGUMENTS = (
    "cutoffs",
    "div_value",
    "embedding_size",
    "tie_embeddings",
    "share_projections",
    "projection_initializer_stddev",
)


def edit_config(path, change):
    """Lets `change` modify the model's config of a preset in place."""
    file = path / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    change(config["model"])
    file.write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("options", CLUSTERED, ids=str)
def test_outputs_are_the_same_bit_for_bit(
    make_model, make_tokens, tmp_path, options
):
    model = make_model(**options, projection_initializer_stddev=0.7)
    model.save_to_preset(tmp_path)
    loaded = Model.from_preset(tmp_path)
    tokens, targets = make_tokens(2, 7), make_tokens(2, 7, seed=5)
    for one, other in (
        (loaded(tokens), model(tokens)),
        (loaded.score(tokens, targets), model.score(tokens, targets)),
    ):
        np.testing.assert_array_equal(one[0], other[0])
    config, expected = (
        {**value.get_config(), "name": None} for value in (loaded, model)
    )
    assert config == expected
    assert config["projection_initializer_stddev"] == 0.7


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("mixed_bfloat16", 0.4), ("mixed_float16", 0.1), ("float64", 1e-4)],
)
def test_another_dtype(make_model, make_tokens, tmp_path, dtype, tolerance):
    model, tokens = make_model(**CLUSTERED[2]), make_tokens(2, 7)
    model.save_to_preset(tmp_path)
    loaded = Model.from_preset(tmp_path, dtype=dtype)
    variables = "float64" if dtype == "float64" else "float32"
    assert {weight.dtype for weight in loaded.weights} == {variables}
    expected, _ = model.score(tokens, tokens)
    log_probs, _ = loaded.score(tokens, tokens)
    assert log_probs.dtype == variables
    np.testing.assert_allclose(log_probs, expected, atol=tolerance)


def test_weights_of_other_clusters_are_refused(make_model, tmp_path):
    options = {
        "base": ADAPTIVE,
        "cutoffs": {**ADAPTIVE, "cutoffs": (5, 9)},
        "div_value": {**ADAPTIVE, "div_value": 3},
        "embedding_size": {**ADAPTIVE, "embedding_size": 15},
        "tie_embeddings": {**ADAPTIVE, "tie_embeddings": False},
        "share_projections": {**ADAPTIVE, "share_projections": False},
    }
    models = {name: make_model(**value) for name, value in options.items()}
    for name, model in models.items():
        model.save_to_preset(tmp_path / name)
    base = models.pop("base")
    # Each way: neither lacks what the other has.
    for name, other in models.items():
        for model, path in ((base, name), (other, "base")):
            before = model.get_weights()
            with pytest.raises(ValueError) as caught:
                load_preset_weights(model, tmp_path / path)
            message = str(caught.value)
            assert "\n" not in message
            assert f"{tmp_path / path} has {name} " in message
            for value, kept in zip(model.get_weights(), before, strict=True):
                np.testing.assert_array_equal(value, kept)


@pytest.mark.parametrize(
    "change",
    [
        {"cutoffs": [5, 9]},
        {"cutoffs": [5]},
        {"cutoffs": []},
        {"div_value": 3},
        {"embedding_size": 15},
        {"tie_embeddings": False},
        {"share_projections": False},
    ],
    ids=str,
)
def test_a_config_that_contradicts_the_weights(make_model, tmp_path, change):
    make_model(**ADAPTIVE).save_to_preset(tmp_path)
    edit_config(tmp_path, lambda config: config.update(change))
    with pytest.raises(ValueError) as caught:
        Model.from_preset(tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert f"{tmp_path / 'model.weights.h5'} cannot be loaded" in message


def test_a_preset_from_before_there_were_any(make_model, make_tokens, tmp_path):
    model, tokens = make_model(untie_biases=True), make_tokens(2, 7)
    model.save_to_preset(tmp_path)
    edit_config(tmp_path, lambda config: [config.pop(x) for x in NEW_ARGUMENTS])
    # The softmax was of another class, whose name Keras wrote.
    with h5py.File(tmp_path / "model.weights.h5", "r+") as file:
        file.move("layers/adaptive_softmax", "layers/token_softmax")
    loaded = Model.from_preset(tmp_path)
    np.testing.assert_array_equal(loaded(tokens)[0], model(tokens)[0])
    # And its weights fit a model that says what they are.
    load_preset_weights(make_model(untie_biases=True), tmp_path)
    with pytest.raises(ValueError, match=r"has cutoffs \[\]; the model"):
        load_preset_weights(make_model(untie_biases=True, **ADAPTIVE), tmp_path)


def test_weights_without_a_softmax_are_refused(make_model, tmp_path):
    make_model().save_to_preset(tmp_path)
    with h5py.File(tmp_path / "model.weights.h5", "r+") as file:
        del file["layers/adaptive_softmax"]
    with pytest.raises(ValueError, match="weights.h5 cannot be loaded"):
        Model.from_preset(tmp_path)
