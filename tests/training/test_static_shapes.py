"""The training step as a TPU needs it: static shapes, one program."""

import pytest
import tensorflow as tf
from tensorflow.python.framework.function_def_to_graph import (
    function_def_to_graph,
)

from official_lrm.kernels.backends import compiled_for_tpus


def step_function(trainer):
    """One step as a concrete function of its inputs and memories."""
    inputs = next(iter(trainer.task.training_lanes().dataset()))
    trainer.train(tf.constant(1))  # Slots and iterator exist.

    def step(inputs, memories):
        logs = trainer._replica_step(inputs, memories, tf.constant(False))
        return logs["loss"], logs["memories"]

    return tf.function(step), (inputs, trainer.memories)


# Tensors without a shape that no program holds at run time: which axes a
# gradient is summed over, small vectors that XLA computes when it compiles and
# that a reshape follows; and arguments that a loop's condition does not use.
_COMPILED_AWAY = ("BroadcastGradientArgs", "redundant_placeholder")


def unknown_shapes(graph):
    """Names of a graph's tensors whose shape is not known, at any depth."""
    names = [
        f"{operation.name} ({operation.type})"
        for operation in graph.get_operations()
        for output in operation.outputs
        if not output.shape.is_fully_defined()
    ]
    definition = graph.as_graph_def(add_shapes=True)
    for function in definition.library.function:
        inner = function_def_to_graph(function)
        names += [
            f"{function.signature.name}/{operation.name} ({operation.type})"
            for operation in inner.get_operations()
            for output in operation.outputs
            if not output.shape.is_fully_defined()
        ]
    return names


CASES = {
    "plain": {},
    "dropout": {"dropout": 0.1, "attention_dropout": 0.1},
    "cutoffs": {"cutoffs": [20, 90], "div_value": 2},
    "same_length": {"same_length": True, "clamp_length": 9},
    "rematerialized": {"rematerialize": "long"},
    "accumulated": {"gradient_accumulation_steps": 3},
    "bfloat16": {"dtype": "bfloat16"},
}


@pytest.fixture
def make_case(make_params, make_trainer):
    """Returns make(name of a case) -> LanguageModelTrainer."""

    def make(case):
        fields = dict(CASES[case])
        groups = fields.pop("gradient_accumulation_steps", 1)
        params = make_params(**fields)
        params.trainer.gradient_accumulation_steps = groups
        return make_trainer(params)

    return make


@pytest.fixture(params=["CPU", "TPU"])
def device(request, monkeypatch):
    """Returns choose(), after which is traced what a device of it runs."""

    def choose():
        if request.param == "TPU":
            default = type(tf.distribute.get_strategy())
            monkeypatch.setattr(tf.distribute, "TPUStrategy", default)
        assert compiled_for_tpus() == (request.param == "TPU")

    return choose


@pytest.mark.parametrize("case", CASES)
def test_no_dimension_of_the_step_is_unknown(make_case, case, device):
    step, arguments = step_function(make_case(case))
    device()

    graph = step.get_concrete_function(*arguments).graph

    assert len(graph.get_operations()) > 500
    unknown = [
        name
        for name in unknown_shapes(graph)
        if not any(kind in name for kind in _COMPILED_AWAY)
    ]
    assert unknown == []


def test_an_unknown_dimension_is_found():
    """Given a graph whose inner function has one, when it is searched, then
    it is named."""

    @tf.function
    def inner(x):
        return tf.boolean_mask(x, x > 0)

    graph = (
        tf.function(lambda x: inner(x))
        .get_concrete_function(tf.TensorSpec([3]))
        .graph
    )

    assert any("boolean_mask" in name for name in unknown_shapes(graph))


@pytest.mark.parametrize("case", CASES)
def test_xla_compiles_the_step_as_one_program(make_case, case, device):
    """Given a training step as a CPU or a TPU runs it, when XLA compiles it
    (for the CPU), then it loses what the step loses without it."""
    expected = make_case(case)
    losses = [expected.train(tf.constant(1))["training_loss"] for _ in range(2)]
    trainer = make_case(case)
    step, (_, memories) = step_function(trainer)
    device()
    compiled = tf.function(step.python_function, jit_compile=True)

    second = trainer.task.training_lanes().dataset(start_step=1)
    loss, _ = compiled(next(iter(second)), memories)

    # XLA draws other dropout masks from the same seed.
    tolerance = {"dropout": 0.1, "bfloat16": 0.02}.get(case, 1e-5)
    assert float(loss) == pytest.approx(losses[1], abs=tolerance)
