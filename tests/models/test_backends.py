"""The same numbers on Keras's TensorFlow and JAX backends."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import official_lrm as lrm

TOLERANCE = 1e-5

# Reads `job.npz` of each folder: a config, weights and tokens [B, S, T]. Writes
# `out.npz`: logits, scores and memories after each of S segments.
WORKER = """
import json, sys
import keras
import numpy as np
import official_lrm as lrm

# Drawing weights that the job replaces takes JAX seconds for each shape.
keras.initializers.RandomNormal.__call__ = (
    lambda self, shape, dtype=None, **kwargs: np.zeros(shape, dtype)
)
assert keras.backend.backend() == sys.argv[1]
for folder in sys.argv[2:]:
    with np.load(folder + "/job.npz", allow_pickle=False) as file:
        job = dict(file)
    config = json.loads(str(job["config"]))
    model = lrm.TransformerXLLanguageModel.from_config(config)
    for i, weight in enumerate(model.weights):
        assert weight.path == str(job[f"path_{i}"])
        weight.assign(job[f"weight_{i}"])
    assert f"weight_{i + 1}" not in job
    out, memories = {}, model.initial_memories(job["tokens"].shape[0])
    for s in range(job["tokens"].shape[1]):
        tokens = job["tokens"][:, s]
        scores, _ = model.score(tokens, tokens[:, ::-1].copy(), memories)
        logits, memories = model(tokens, memories)
        out[f"scores_{s}"], out[f"logits_{s}"] = scores, logits
        out.update({f"{k}_{s}": v for k, v in memories.items()})
    np.savez(folder + "/out.npz", **{k: np.array(v) for k, v in out.items()})
"""


def write_job(folder, model, tokens):
    folder.mkdir()
    job = {"config": json.dumps(model.get_config()), "tokens": tokens}
    for i, weight in enumerate(model.weights):
        job[f"path_{i}"] = weight.path
        job[f"weight_{i}"] = np.array(weight)
    np.savez(folder / "job.npz", **job)


def wide(model):
    """The model in float64, whose numbers those of float32 are rounded from."""
    config = {**model.get_config(), "dtype": "float64"}
    twin = lrm.TransformerXLLanguageModel.from_config(config)
    for weight, value in zip(twin.weights, model.weights, strict=True):
        weight.assign(keras.ops.cast(value, "float64"))
    return twin


def read(folder):
    with np.load(folder / "out.npz", allow_pickle=False) as file:
        return dict(file)


def expected_outputs(model, tokens):
    out, memories = {}, model.initial_memories(tokens.shape[0])
    for s in range(tokens.shape[1]):
        segment = tokens[:, s]
        scores, _ = model.score(segment, segment[:, ::-1], memories)
        logits, memories = model(segment, memories)
        out[f"scores_{s}"], out[f"logits_{s}"] = scores, logits
        out.update({f"{k}_{s}": v for k, v in memories.items()})
    return {name: np.array(value) for name, value in out.items()}


@pytest.fixture(scope="module")
def run_on():
    def run(backend, folders):
        root = str(pathlib.Path(lrm.__file__).parents[1])
        path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            [sys.executable, "-c", WORKER, backend, *map(str, folders)],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": path.rstrip(os.pathsep),
                "KERAS_BACKEND": backend,
                "JAX_PLATFORMS": "cpu",
                "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            },
        )

    return run


def test_jax_computes_what_tensorflow_does(
    golden,
    make_model,
    make_tokens,
    run_on,
    tmp_path,
):
    pytest.importorskip("jax")
    assert keras.backend.backend() == "tensorflow"
    # Given the weights of golden files, and models of uneven spans,
    names = ("transfo_xl_char", "transfo_xl_word", "mem_transformer_growing")
    files = {name: golden(name) for name in names}
    models = {
        **{
            name: lrm.checkpoints.from_transfo_xl(
                file.state_dict,
                file.config,
                attend_to_empty=name.startswith("transfo_xl"),
            )
            for name, file in files.items()
        },
        "uneven": make_model((5, 0, 11), untie_biases=True),
        "same_length": make_model((5, 0, 11), same_length=True, clamp_length=4),
    }
    tokens = {
        **{name: file.arrays["ids"] for name, file in files.items()},
        "uneven": make_tokens(2, 21),
        "same_length": make_tokens(2, 21),
    }
    tokens = {
        name: value.astype("int32").reshape(2, 3, 7)
        for name, value in tokens.items()
    }
    folders = {name: tmp_path / name for name in models}
    for name, model in models.items():
        write_job(folders[name], model, tokens[name])
    # when JAX runs three segments,
    run = run_on("jax", folders.values())
    assert run.returncode == 0, run.stderr
    # then all that comes out is what TensorFlow computes.
    for name, model in models.items():
        expected = expected_outputs(wide(model), tokens[name])
        outputs = read(folders[name])
        assert outputs.keys() == expected.keys()
        for key, value in expected.items():
            dtype = str(value.dtype).replace("float64", "float32")
            assert outputs[key].dtype == dtype, (name, key)
            np.testing.assert_allclose(
                outputs[key],
                value,
                atol=TOLERANCE,
                rtol=0,
                err_msg=f"{name} {key}",
            )
    # And what Hugging Face computed.
    for name in ("transfo_xl_char", "transfo_xl_word"):
        logits = read(folders[name])["logits_2"]
        np.testing.assert_allclose(
            keras.ops.log_softmax(logits),
            files[name].arrays["log_probs_2"],
            atol=1e-4,
        )
