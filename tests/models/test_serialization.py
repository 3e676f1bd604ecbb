"""Tests of configs and of the `.keras` file."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import official_lrm as lrm

SPANS = lrm.MemorySpans([5, 0, 11], is_long=[True, False, False])
OPTIONS = {
    "dropout": 0.2,
    "attention_dropout": 0.3,
    "untie_biases": True,
    "clamp_length": 4,
    "same_length": True,
    "layer_norm_epsilon": 1e-3,
    "attend_to_empty": True,
    "initializer_stddev": 0.7,
    "cutoffs": [5, 8],
    "div_value": 2,
    "embedding_size": 23,
    "tie_embeddings": False,
    "share_projections": False,
    "projection_initializer_stddev": 0.3,
}

# What somebody who was given a file writes, and nothing else.
LOAD = """
import sys
import keras, official_lrm
import numpy as np

for path in sys.argv[1:]:
    model = keras.saving.load_model(path + ".keras")
    print(model.spans.lengths, model.spans.is_long)
    tokens = np.load(path + "_tokens.npy", allow_pickle=False)
    logits, memories = model(tokens[:, :7])
    log_probs, _ = model.score(tokens[:, 7:], tokens[:, :3], memories)
    logits, memories = model(tokens[:, 7:], memories)
    np.save(path + "_logits.npy", np.array(logits))
    np.save(path + "_log_probs.npy", np.array(log_probs))
"""


def environment():
    """Lets a subprocess import the package from wherever it was found."""
    root = str(pathlib.Path(lrm.__file__).parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)}


def second_segment(model, tokens):
    _, memories = model(tokens[:, :7])
    return np.array(model(tokens[:, 7:], memories)[0])


def second_scores(model, tokens):
    _, memories = model(tokens[:, :7])
    return np.array(model.score(tokens[:, 7:], tokens[:, :3], memories)[0])


class TestConfig:
    def test_round_trip_through_json(self, sizes, make_tokens):
        model = lrm.TransformerXLLanguageModel(
            spans=SPANS, **sizes, **OPTIONS, dtype="mixed_bfloat16", name="lm"
        )
        config = json.loads(json.dumps(model.get_config()))
        again = lrm.TransformerXLLanguageModel.from_config(config)
        assert again.get_config() == model.get_config()
        assert again.spans == SPANS
        assert again.name == "lm"
        assert again.dtype_policy == model.dtype_policy
        for name, value in {**sizes, **OPTIONS}.items():
            assert config[name] == value, name
        assert again.same_length and again.attend_to_empty
        assert again.clamp_length == 4
        again.set_weights(model.get_weights())
        tokens = make_tokens(2, 10)
        np.testing.assert_array_equal(
            second_segment(again, tokens), second_segment(model, tokens)
        )

    def test_the_config_passed_in_stays(self, make_model):
        model = make_model(SPANS)
        config = model.get_config()
        type(model).from_config(config)
        assert config == model.get_config()

    def test_it_names_every_argument_that_matters(self, make_model):
        config = make_model(SPANS).get_config()
        assert set(OPTIONS) < set(config)
        assert json.loads(json.dumps(config)) == config
        assert config["spans"] == SPANS.get_config()

    def test_registered_under_the_packages_name(self, make_model):
        config = keras.saving.serialize_keras_object(make_model(SPANS))
        assert config["registered_name"] == (
            "official_lrm>TransformerXLLanguageModel"
        )
        again = keras.saving.deserialize_keras_object(config)
        assert again.spans == SPANS


class TestKerasFile:
    def test_another_process_loads_it_with_two_imports(
        self, make_model, make_tokens, tmp_path
    ):
        # Given models on disk: plain; with all options; and one whose spans
        # are not those that its weights were made with.
        models = {
            "plain": make_model(SPANS),
            "clusters": make_model(SPANS, cutoffs=(5, 8), div_value=2),
            "options": make_model(SPANS, **OPTIONS, dtype="mixed_bfloat16"),
            "widened": make_model(SPANS).with_spans(SPANS.with_long(0)),
        }
        paths, expected, scores = [], {}, {}
        for name, model in models.items():
            path = str(tmp_path / name)
            tokens = make_tokens(2, 10)
            expected[name] = second_segment(model, tokens)
            scores[name] = second_scores(model, tokens)
            model.save(path + ".keras")
            np.save(path + "_tokens.npy", tokens)
            paths.append(path)
        # When a process that knows nothing of them loads them,
        run = subprocess.run(
            [sys.executable, "-c", LOAD, *paths],
            capture_output=True,
            text=True,
            env=environment(),
            cwd=tmp_path,
        )
        assert run.returncode == 0, run.stderr
        # then the spans are the same, and the logits.
        assert run.stdout.splitlines() == [
            "(5, 0, 11) (True, False, False)",
            "(5, 0, 11) (True, False, False)",
            "(5, 0, 11) (True, False, False)",
            "(0, 0, 11) (True, False, False)",
        ]
        for name, path in zip(models, paths, strict=True):
            logits = np.load(path + "_logits.npy", allow_pickle=False)
            np.testing.assert_allclose(logits, expected[name], atol=1e-6)
            log_probs = np.load(path + "_log_probs.npy", allow_pickle=False)
            np.testing.assert_allclose(log_probs, scores[name], atol=1e-6)

    def test_bit_for_bit_in_this_process(
        self, make_model, make_tokens, tmp_path
    ):
        model, tokens = make_model(SPANS, **OPTIONS), make_tokens(2, 10)
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        assert again.get_config() == model.get_config()
        for second in (second_segment, second_scores):
            np.testing.assert_array_equal(
                second(again, tokens), second(model, tokens)
            )

    def test_weights_alone(self, make_model, make_tokens, tmp_path):
        model = make_model(SPANS)
        model.save_weights(tmp_path / "model.weights.h5")
        again = make_model((0, 3, 2), weights_seed=7)
        again.load_weights(tmp_path / "model.weights.h5")
        for weight, other in zip(model.weights, again.weights, strict=True):
            np.testing.assert_array_equal(weight, other)

    def test_weights_of_other_sizes_are_refused(self, make_model, tmp_path):
        make_model((5, 0)).save_weights(tmp_path / "model.weights.h5")
        with pytest.raises(ValueError):
            make_model((5, 0, 11)).load_weights(tmp_path / "model.weights.h5")
