"""A training step: its groups of lanes, and rematerialisation."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from official.core import task_factory

from official_lrm.configs import resolve
from official_lrm.models import TransformerXLLanguageModel
from official_lrm.tasks.gradient_accumulation import check_groups
from official_lrm.training import parse_params

B, T, V = 4, 7, 19
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


@pytest.fixture
def take_step():
    """Returns take(groups, dtype, dropout, rematerialize) -> a dict."""
    policy = keras.config.dtype_policy()

    def take(groups, dtype="float64", dropout=0.0, rematerialize=False):
        config = {
            "task": {
                "model": {
                    "vocab_size": V,
                    "num_layers": 2,
                    "hidden_size": 14,
                    "num_heads": 3,
                    "head_size": 5,
                    "inner_size": 17,
                    "dropout": dropout,
                    "attention_dropout": dropout,
                    # Larger than in training, so that all parts matter.
                    "initializer_stddev": 0.4,
                    "spans": {"lengths": [5, 11]},
                    "rematerialize": rematerialize,
                }
            },
            "trainer": {
                "optimizer_config": {
                    "warmup": {"linear": {"warmup_steps": 0}},
                    # Else the first update is the sign of the gradient, also
                    # of one that is nothing but rounding.
                    "optimizer": {"adam": {"epsilon": 1e-3}},
                }
            },
            "runtime": {"mixed_precision_dtype": dtype},
        }
        params = parse_params(
            "lrm_quickstart", params_override=json.dumps(config)
        )
        settings = resolve(params)
        keras.config.set_dtype_policy(settings.dtype_policy)
        keras.utils.set_random_seed(3)
        task = task_factory.get_task(params.task)
        model = task.build_model()
        optimizer = task.create_optimizer(settings.optimizer)
        optimizer.build(model.trainable_variables)
        rng = np.random.default_rng(5)
        text = rng.integers(0, V, (B, 2 * T + 1), dtype="int32")
        _, memories = model(text[:, :T])
        inputs = {
            "tokens": tf.constant(text[:, T:-1]),
            "targets": tf.constant(text[:, T + 1 :]),
            # Lanes of different weight, and one that starts afresh.
            "weights": tf.constant(rng.integers(0, 2, (B, T)), tf.float32),
            "reset": tf.constant([False, True, False, False]),
            "memories": memories,
            "seed": tf.constant([17, 5]),
        }

        @tf.function
        def step(inputs):
            return task.train_step(
                inputs,
                model,
                optimizer,
                clip=0.25,
                gradient_accumulation_steps=groups,
            )

        logs = step(inputs)
        weights = {
            variable.path: np.array(variable)
            for variable in model.trainable_variables + optimizer.variables
        }
        memories = {k: np.array(v) for k, v in logs.pop("memories").items()}
        return {
            **{name: np.array(value) for name, value in logs.items()},
            **memories,
            **weights,
        }

    yield take
    keras.config.set_dtype_policy(policy)


def assert_close(step, expected, tolerance):
    assert step.keys() == expected.keys()
    for name, value in expected.items():
        assert step[name].dtype == value.dtype
        np.testing.assert_allclose(
            step[name], value, rtol=tolerance, atol=tolerance, err_msg=name
        )


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_groups_of_lanes_change_nothing(take_step, dtype):
    # Given a step of 4 lanes, when they are worked through one by one,
    expected = take_step(1, dtype)
    # then loss, weights, optimizer and memories are those of all at once.
    assert_close(take_step(B, dtype), expected, TOLERANCE[dtype])


def test_each_group_draws_its_own_masks(take_step):
    memory = take_step(B, dropout=0.3)["memory_00"]
    # The embedding after dropout: a mask of its own for each lane.
    assert len({(lane == 0).tobytes() for lane in memory}) == B


@pytest.mark.parametrize("layers", [True, "long"])
def test_rematerialisation_changes_nothing(take_step, layers):
    expected = take_step(2, dropout=0.3)
    step = take_step(2, dropout=0.3, rematerialize=layers)
    assert_close(step, expected, 1e-12)


def test_memories_are_appended_to_when_the_gradients_are_there(
    take_step, monkeypatch
):
    # Not before: they would be held beside the activations.
    waits, append_segment = [], TransformerXLLanguageModel.append_segment

    def append(*arguments):
        waits.extend(tf.no_op().control_inputs)
        return append_segment(*arguments)

    monkeypatch.setattr(TransformerXLLanguageModel, "append_segment", append)
    step = take_step(1)
    variables = {name for name in step if "/" in name}
    assert len(waits) == sum(not name.startswith("adam/") for name in variables)


def test_groups_that_do_not_divide_the_lanes_are_refused(take_step):
    with pytest.raises(ValueError) as error:
        check_groups(3, B)
    assert str(error.value) == (
        "trainer.gradient_accumulation_steps must divide the 4 lanes of a "
        "replica, so be one of 1, 2, 4; got 3."
    )
    with pytest.raises(ValueError, match="one of 1, 2, 4; got 3"):
        take_step(3)
