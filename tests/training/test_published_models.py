"""The published models as they are, gigabytes each."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import official_lrm as lrm
from official_lrm.configs.settings import model_arguments, resolve
from official_lrm.training import parse_params

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Dai et al.'s base model: a projection for no cluster, biases of each layer.
WIKITEXT103_BASE = (
    "task.model.num_layers=16,task.model.hidden_size=410,"
    "task.model.num_heads=10,task.model.head_size=41,"
    "task.model.inner_size=2100,task.model.div_value=1"
)

_STEP = """
import json, resource
import numpy as np
import tensorflow as tf
from official_lrm.configs import resolve
from official_lrm.tasks import LanguageModelingTask
from official_lrm.training import parse_params

params = parse_params(
    "lrm_wikitext103",
    params_override="task.train_data.global_batch_size=1,"
    "task.train_data.segment_length=64,"
    "task.model.spans.long=128,task.model.spans.short=32",
)
task = LanguageModelingTask(params.task)
model = task.build_model()
optimizer = task.create_optimizer(resolve(params).optimizer)
optimizer.build(model.trainable_variables)
rng = np.random.default_rng(0)


@tf.function
def train_step(inputs):
    return task.train_step(inputs, model, optimizer, clip=0.25)


# Targets of all four clusters, the memories of a step for the next.
text = np.exp(rng.uniform(0, np.log(267_735), (1, 129))).astype("int32") - 1
memories, losses = model.initial_memories(1), []
for step in range(2):
    tokens, targets = (
        text[:, start : start + 64] for start in (64 * step, 64 * step + 1)
    )
    outputs = train_step(
        {
            "tokens": tf.constant(tokens),
            "targets": tf.constant(targets),
            "weights": tf.ones([1, 64]),
            "reset": tf.constant([False]),
            "memories": memories,
            "seed": tf.constant([0, step]),
        }
    )
    memories = outputs["memories"]
    losses.append(float(outputs[task.loss]))
print(
    json.dumps(
        {
            "parameters": model.count_params(),
            "losses": losses,
            "clusters": np.bincount(
                np.digitize(text[0, 1:], [20_000, 40_000, 200_000])
            ).tolist(),
            "position": int(memories["position"][0]),
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }
    )
)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "override", "parameters"),
    [
        ("lrm_enwik8", "", 277_231_820),
        ("lrm_wikitext103", WIKITEXT103_BASE, 151_119_838),
    ],
)
def test_the_built_model_has_the_published_size(
    experiment, override, parameters
):
    params = parse_params(experiment, params_override=override or None)
    arguments = model_arguments(params.task.model)
    model = lrm.TransformerXLLanguageModel(**arguments)

    assert model.count_params() == parameters
    memories = model.initial_memories(1)
    del memories["position"]
    size = sum(np.asarray(value).nbytes for value in memories.values())
    expected = model.spans.state_bytes(model.hidden_size)
    assert (
        size == expected == resolve(params).spans.state_bytes(model.hidden_size)
    )


@pytest.mark.slow
def test_wikitext103_trains_without_all_its_logits():
    """267,735 words, 64 targets, on a machine of 24 GiB."""
    result = subprocess.run(
        [sys.executable, "-c", _STEP],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    seen = json.loads(result.stdout.splitlines()[-1])
    print(seen)
    assert seen["parameters"] == 285_205_322
    assert min(seen["clusters"]) > 0
    assert seen["position"] == 128
    # Near that of a uniform guess, the tied table being small at first.
    assert seen["losses"] == pytest.approx([np.log(267_735)] * 2, abs=2)
    # Parameters and Adam's slots are 3.2 GiB, their gradient another.
    assert seen["peak"] < 9
