"""Scoring with cutoffs never holds [B, T, V], on either backend.

The largest tensor of a training step is looked for in all that is traced,
loops included, and its gradients are compared between the backends.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import official_lrm as lrm
from official_lrm.layers import chunked_logsumexp

# B * T = 51 rows: each of the clusters of 1009, 994 and 3000 tokens takes
# several chunks of at most 2^15 logits.
B, T, V = 3, 17, 5003
CUTOFFS = (1009, 2003)
MAX_ELEMENTS = 2**15

OPTIONS = {
    "tied": {"cutoffs": CUTOFFS, "div_value": 2},
    "own": {
        "cutoffs": CUTOFFS,
        "div_value": 2,
        "embedding_size": 23,
        "tie_embeddings": False,
        "share_projections": False,
    },
}

# Writes the gradients of a training step and the largest sizes in it.
WORKER = """
import json, math, sys
import jax, keras
import numpy as np

# Drawing weights that the job replaces takes JAX seconds.
keras.initializers.RandomNormal.__call__ = (
    lambda self, shape, dtype=None, **kwargs: np.zeros(shape, dtype)
)
import official_lrm as lrm
from official_lrm.layers import chunked_logsumexp

assert keras.backend.backend() == "jax"
folder, max_elements = sys.argv[1:]
module = sys.modules[chunked_logsumexp.__module__]
module._MAX_ELEMENTS = int(max_elements)


def sizes(value):
    if hasattr(value, "eqns"):
        for equation in value.eqns:
            yield from (math.prod(x.aval.shape) for x in equation.outvars)
            yield from sizes(list(equation.params.values()))
    elif hasattr(value, "jaxpr"):
        yield from sizes(value.jaxpr)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from sizes(item)


def score(tokens, targets):
    return model.score(tokens, targets)[0]


def gather(tokens, targets):
    log_probs = model(tokens)[0]
    return keras.ops.take_along_axis(log_probs, targets[..., None], -1)


def step(function):
    def loss(values, tokens, targets):
        mapping = list(zip(model.trainable_variables, values))
        with keras.StatelessScope(state_mapping=mapping):
            return -keras.ops.mean(function(tokens, targets))

    return jax.value_and_grad(loss)


with np.load(folder + "/job.npz", allow_pickle=False) as file:
    job = dict(file)
config = json.loads(str(job["config"]))
model = lrm.TransformerXLLanguageModel.from_config(config)
paths = [variable.path for variable in model.trainable_variables]
inputs = [job[path] for path in paths], job["tokens"], job["targets"]
loss, gradients = jax.jit(step(score))(*inputs)
out = dict(zip(paths, gradients, strict=True), loss=loss)
for function in (score, gather):
    jaxpr = jax.make_jaxpr(step(function))(*inputs)
    out[function.__name__] = max(sizes(jaxpr))
np.savez(folder + "/out.npz", **out)
"""


def make_model(name):
    model = lrm.TransformerXLLanguageModel(
        vocab_size=V,
        spans=(5,),
        hidden_size=14,
        num_heads=3,
        head_size=5,
        inner_size=17,
        **OPTIONS[name],
        name="lm",
    )
    rng = np.random.default_rng(2)
    for weight in model.weights:
        value = rng.normal(size=weight.shape) * 0.4
        weight.assign(value + (weight.name == "gamma"))
    return model


def make_inputs():
    rng = np.random.default_rng(3)
    tokens = rng.integers(0, V, (B, T), dtype="int32")
    # As many of each cluster, most of which a uniform draw would leave out.
    targets = rng.integers(0, 1009, (B, T), dtype="int32")
    targets += np.arange(B * T, dtype="int32").reshape(B, T) % 3 * 1009
    return tokens, targets


@pytest.fixture
def small_chunks(monkeypatch):
    module = sys.modules[chunked_logsumexp.__module__]
    monkeypatch.setattr(module, "_MAX_ELEMENTS", MAX_ELEMENTS)


def score(model, tokens, targets):
    return model.score(tokens, targets)[0]


def gather(model, tokens, targets):
    return tf.gather(model(tokens)[0], targets, axis=-1, batch_dims=2)


def training_step(model, function):
    @tf.function
    def step(tokens, targets):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(function(model, tokens, targets))
        gradients = tape.gradient(loss, model.trainable_variables)
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]

    return step


def largest_size(graph):
    """Of the tensors of a graph and of its functions, loops among them."""
    definition = graph.as_graph_def(add_shapes=True)
    nodes = list(definition.node)
    for function in definition.library.function:
        nodes.extend(function.node_def)
    sizes = []
    for node in nodes:
        for shape in node.attr["_output_shapes"].list.shape:
            dims = [dim.size for dim in shape.dim]
            # One number for each axis; nothing else is of unknown shape.
            assert -1 not in dims or node.op == "BroadcastGradientArgs"
            sizes.append(np.prod(dims))
    assert any(node.op.endswith("While") for node in nodes) == any(
        "while_body" in f.signature.name for f in definition.library.function
    )
    return max(sizes)


@pytest.mark.parametrize("name", list(OPTIONS))
@pytest.mark.usefixtures("small_chunks")
def test_no_tensor_of_a_tensorflow_graph_is_larger_than_a_chunk(name):
    model, inputs = make_model(name), make_inputs()

    def largest_of(function):
        step = training_step(model, function)
        return largest_size(step.get_concrete_function(*inputs).graph)

    largest = largest_of(score)
    assert largest <= MAX_ELEMENTS < B * T * 994
    # Nearly so large are the chunks: they were looked at.
    assert largest > 0.9 * MAX_ELEMENTS
    # And all log-probabilities would have been found.
    assert largest_of(gather) == B * T * V


@pytest.mark.usefixtures("small_chunks")
def test_jax_computes_the_same_gradients_in_as_small_chunks(tmp_path):
    pytest.importorskip("jax")
    model, (tokens, targets) = make_model("tied"), make_inputs()
    variables = model.trainable_variables
    np.savez(
        tmp_path / "job.npz",
        config=json.dumps(model.get_config()),
        tokens=tokens,
        targets=targets,
        **{variable.path: np.array(variable) for variable in variables},
    )
    root = str(pathlib.Path(lrm.__file__).parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-c", WORKER, str(tmp_path), str(MAX_ELEMENTS)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": path.rstrip(os.pathsep),
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        },
    )
    assert run.returncode == 0, run.stderr
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        out = dict(file)
    assert 0.9 * MAX_ELEMENTS < out.pop("score") <= MAX_ELEMENTS
    assert out.pop("gather") == B * T * V
    loss, gradients = training_step(model, score)(tokens, targets)
    np.testing.assert_allclose(out.pop("loss"), loss, rtol=1e-5)
    assert out.keys() == {variable.path for variable in variables}
    for variable, gradient in zip(variables, gradients, strict=True):
        assert np.any(out[variable.path]), variable.path
        np.testing.assert_allclose(
            out[variable.path],
            gradient,
            atol=1e-5,
            rtol=1e-3,
            err_msg=variable.path,
        )
