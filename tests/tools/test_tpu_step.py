"""What `tools/compile_for_tpu.py` compiles is the step that trains.

One step of `tpu_step`, run by JAX on the CPU, against one of
LanguageModelingTask, run by TensorFlow.
"""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from official.core import task_factory

from official_lrm.configs import resolve
from official_lrm.training import parse_params

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOLERANCE = 1e-5
B, T, V = 4, 7, 19

CONFIG = {
    "task": {
        "model": {
            "vocab_size": V,
            "num_layers": 3,
            "hidden_size": 14,
            "num_heads": 3,
            "head_size": 5,
            "inner_size": 17,
            "initializer_stddev": 0.4,
            "cutoffs": [5, 11],
            "div_value": 2,
            "spans": {"lengths": [5, 0, 11]},
        }
    },
    "trainer": {
        "optimizer_config": {"warmup": {"linear": {"warmup_steps": 0}}}
    },
}

# Reads step.npz: the config, the variables and the inputs. Writes out.npz:
# the step's results, for each number of groups, and an evaluation's.
WORKER = """
import json, sys
import jax, keras
import numpy as np
import tpu_step
from official_lrm.configs import resolve
from official_lrm.models import TransformerXLLanguageModel
from official_lrm.tasks import LanguageModelingTask
from official_lrm.training import parse_params

keras.initializers.RandomNormal.__call__ = (
    lambda self, shape, dtype=None, **kwargs: np.zeros(shape, dtype)
)
folder = sys.argv[1]
with np.load(folder + "/step.npz", allow_pickle=False) as file:
    job = dict(file)
settings = resolve(
    parse_params("lrm_quickstart", params_override=str(job.pop("config")))
)
model = TransformerXLLanguageModel(**settings.model)
optimizer = LanguageModelingTask.create_optimizer(settings.optimizer)
optimizer.build(model.trainable_variables)
for variable in model.trainable_variables:
    variable.assign(job.pop(variable.path))
memories = {name: job.pop(name) for name in model.memory_specs()}
inputs = {**job, "memories": memories}
state = tpu_step.state_of(model, optimizer)
out = {}
for groups, rematerialize in ((1, False), (4, False), (1, True)):
    after, new, loss, norm = jax.jit(
        lambda state, inputs: tpu_step.train_step(
            model, optimizer, state, inputs, clip=0.25,
            rematerialize=rematerialize, num_groups=groups,
        )
    )(state, inputs)
    values = {"loss": loss, "gradient_norm": norm, **new}
    for key, variables in (
        ("trainable", model.trainable_variables),
        ("optimizer", optimizer.variables),
    ):
        for variable, value in zip(variables, after[key], strict=True):
            values[variable.path] = value
    out |= {f"{groups}/{rematerialize}/{k}": v for k, v in values.items()}
length = inputs["tokens"].shape[1]
state["positions"] = tpu_step.positions(model, state, length)
nats, tokens, new = tpu_step.evaluation_step(model, state, inputs)
out |= {"evaluate/nats": nats, "evaluate/tokens": tokens}
out |= {f"evaluate/{k}": v for k, v in new.items()}
np.savez(folder + "/out.npz", **{k: np.array(v) for k, v in out.items()})
"""


def run_worker(folder):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tools")])
    result = subprocess.run(
        [sys.executable, "-c", WORKER, str(folder)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": path,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        },
    )
    assert result.returncode == 0, result.stderr
    with np.load(folder / "out.npz", allow_pickle=False) as file:
        return dict(file)


def test_it_is_the_step_of_the_task(tmp_path):
    pytest.importorskip("jax")
    # Given a model and its optimizer, memories that are written, and lanes of
    # different weight of which one starts afresh,
    text = json.dumps(CONFIG)
    params = parse_params("lrm_quickstart", params_override=text)
    settings = resolve(params)
    keras.utils.set_random_seed(3)
    task = task_factory.get_task(params.task)
    model = task.build_model()
    optimizer = task.create_optimizer(settings.optimizer)
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(5)
    tokens = rng.integers(0, V, (B, 2 * T + 1), dtype="int32")
    _, memories = model(tokens[:, :T])
    inputs = {
        "tokens": tokens[:, T:-1],
        "targets": tokens[:, T + 1 :],
        "weights": rng.integers(0, 2, (B, T)).astype("float32"),
        "reset": np.array([False, True, False, False]),
        "seed": np.array([17, 5], "int32"),
    }
    job = {
        **inputs,
        **{name: np.array(memory) for name, memory in memories.items()},
        **{v.path: np.array(v) for v in model.trainable_variables},
    }
    np.savez(tmp_path / "step.npz", config=text, **job)
    # when both take a step, with and without groups of lanes,
    outputs = run_worker(tmp_path)
    inputs = {name: tf.constant(value) for name, value in inputs.items()}
    inputs["memories"] = memories
    evaluated = task.validation_step(inputs, model)
    logs = task.train_step(inputs, model, optimizer, clip=0.25)
    # then loss, gradient, memories and all variables after it are the same.
    expected = {
        **{name: logs[name] for name in ("loss", "gradient_norm")},
        **logs["memories"],
        **{v.path: np.array(v) for v in model.trainable_variables},
        **{v.path: np.array(v) for v in optimizer.variables},
    }
    expected = {
        **{
            f"{kind}/{name}": value
            for kind in ("1/False", "4/False", "1/True")
            for name, value in expected.items()
        },
        **{f"evaluate/{k}": evaluated[k] for k in ("nats", "tokens")},
        **{f"evaluate/{k}": v for k, v in evaluated["memories"].items()},
    }
    assert outputs.keys() == expected.keys()
    assert float(logs["gradient_norm"]) > 0.25
    for name, value in expected.items():
        np.testing.assert_allclose(
            outputs[name], value, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name
        )
