"""The schedule is Model Garden's; Adam applies what it is given."""

import numpy as np
import pytest
from official.modeling import optimization

import official_lrm as lrm
from official_lrm.tasks.optimizer import SummedGradientAdam, WarmupCosine


@pytest.mark.parametrize("offset", [0, 13])
def test_schedule_equals_model_gardens(offset):
    """Given the same config, when both schedules are read at each step."""
    config = optimization.OptimizationConfig(
        {
            "optimizer": {"type": "adam"},
            "learning_rate": {
                "type": "cosine",
                "cosine": {
                    "initial_learning_rate": 0.3,
                    "decay_steps": 101,
                    "alpha": 0.01,
                    "offset": offset,
                },
            },
            "warmup": {
                "type": "linear",
                "linear": {"warmup_steps": 13, "warmup_learning_rate": 0.05},
            },
        }
    )
    theirs = optimization.OptimizerFactory(config).build_learning_rate()
    ours = WarmupCosine(0.3, 13, 0.05, 101, offset, 0.01)

    for step in range(140):
        assert float(ours(step)) == pytest.approx(
            float(theirs(step)), abs=1e-6
        ), step


def test_schedule_by_hand():
    schedule = WarmupCosine(2.0, 4, 0.0, 10, 4, 0.01)

    values = [float(schedule(step)) for step in (0, 1, 4, 9, 14, 99)]

    np.testing.assert_allclose(
        values, [0, 0.5, 2.0, 2 * (0.01 + 0.99 / 2), 0.02, 0.02], rtol=1e-5
    )


def test_schedule_without_warmup_and_its_config():
    schedule = WarmupCosine(2.0, 0, 0.0, 10, 0, 0.5)

    again = WarmupCosine.from_config(schedule.get_config())

    assert float(schedule(0)) == 2.0
    assert [float(again(s)) for s in range(12)] == [
        float(schedule(s)) for s in range(12)
    ]


def test_adam_moves_by_the_learning_rate_against_the_gradient():
    model = lrm.TransformerXLLanguageModel(7, (0,), 6, 2, 3, 5)
    optimizer = SummedGradientAdam(0.125, epsilon=1e-8)
    optimizer.build(model.trainable_variables)
    before = [np.array(weight) for weight in model.trainable_variables]

    optimizer.apply(
        [np.full(w.shape, 3.0, np.float32) for w in before],
        model.trainable_variables,
    )

    for old, new in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_allclose(old - np.array(new), 0.125, rtol=1e-5)
