"""Tests of the best weights of a run, and of stopping when none are better."""

import json
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf

import official_lrm as lrm
from official_lrm.data import ByteTokenizer
from official_lrm.training import run_experiment
from official_lrm.training.best_preset import BestPreset, StopEarlyError

FIGURE = {"split": "validation", "spans": (5, 0)}


@pytest.fixture
def trainer():
    """What is asked of a trainer; its weights are those of its step."""
    model = lrm.TransformerXLLanguageModel(
        vocab_size=256,
        spans=(5, 0),
        hidden_size=6,
        num_heads=2,
        head_size=3,
        inner_size=7,
    )
    return types.SimpleNamespace(
        model=model,
        task=types.SimpleNamespace(tokenizer=ByteTokenizer()),
        global_step=tf.Variable(0, dtype=tf.int64),
    )


@pytest.fixture
def evaluate(trainer):
    """Returns evaluate(action, step, loss)."""

    def run(action, step, loss):
        trainer.global_step.assign(step)
        for weight in trainer.model.weights:
            weight.assign(np.full(weight.shape, step))
        action({"validation_loss": np.float64(loss), "bpc": 0.0})

    return run


def step_of(folder):
    model = lrm.TransformerXLLanguageModel.from_preset(folder)
    (step,) = {float(np.max(weight)) for weight in model.weights}
    return step


class TestBestPreset:
    def test_it_keeps_the_best(self, trainer, evaluate, tmp_path):
        action = BestPreset(trainer, tmp_path, "best", FIGURE)
        assert action.summary == ""
        for step, loss in ((10, 3.0), (20, 2.0), (30, 2.5), (40, np.nan)):
            evaluate(action, step, loss)
        assert step_of(tmp_path / "best") == 20
        record = json.loads((tmp_path / "best" / "best.json").read_text())
        assert record == {
            "step": 20,
            "validation_loss": 2.0,
            "worse_since": 2,
            "last_step": 40,
            "figure": {"split": "validation", "spans": [5, 0]},
        }
        assert action.summary == f"{tmp_path / 'best'} (step 20, 2.0000 nats)"
        tokenizer = json.loads((tmp_path / "best/tokenizer.json").read_text())
        assert tokenizer == ByteTokenizer().get_config()
        assert not list((tmp_path / "best").glob("*.tmp"))

    def test_a_resumed_run_goes_on(self, trainer, evaluate, tmp_path):
        evaluate(BestPreset(trainer, tmp_path, "best", FIGURE), 10, 2.0)
        # Given a process of its own, which comes to the same step again,
        action = BestPreset(trainer, tmp_path, "best", FIGURE, patience=2)
        evaluate(action, 10, 2.0)
        evaluate(action, 20, 2.1)
        assert step_of(tmp_path / "best") == 10
        action.check()
        evaluate(action, 30, 2.1)
        with pytest.raises(StopEarlyError):
            action.check()

    def test_another_figure_begins_again(
        self, trainer, evaluate, tmp_path, caplog
    ):
        evaluate(BestPreset(trainer, tmp_path, "best", FIGURE), 10, 2.0)
        other = {**FIGURE, "split": "train"}
        with caplog.at_level("WARNING"):
            action = BestPreset(trainer, tmp_path, "best", other)
        assert "split was validation and is train" in caplog.text
        evaluate(action, 9, 2.5)
        assert step_of(tmp_path / "best") == 9

    def test_a_run_from_the_start_forgets_an_earlier_one(
        self, trainer, evaluate, tmp_path
    ):
        evaluate(BestPreset(trainer, tmp_path, "best", FIGURE), 10, 2.0)
        action = BestPreset(trainer, tmp_path, "best", FIGURE)
        assert action.last_step == 10
        action.forget()
        evaluate(action, 2, 3.0)
        assert step_of(tmp_path / "best") == 2

    def test_two_processes_keep_the_better(self, trainer, evaluate, tmp_path):
        evaluate(BestPreset(trainer, tmp_path, "best", FIGURE), 1, 9.0)
        first, second = (
            BestPreset(trainer, tmp_path, "best", FIGURE) for _ in range(2)
        )
        evaluate(first, 10, 2.0)
        evaluate(second, 9, 2.5)
        evaluate(second, 11, 2.4)
        assert step_of(tmp_path / "best") == 10

    def test_the_first_loss_may_be_nan(self, trainer, evaluate, tmp_path):
        action = BestPreset(trainer, tmp_path, "best", FIGURE, patience=1)
        evaluate(action, 1, np.nan)
        assert not action.summary
        evaluate(action, 2, 3.0)
        action.check()
        assert step_of(tmp_path / "best") == 2

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"step": "x"}'])
    def test_a_damaged_record_is_begun_again(
        self, trainer, evaluate, tmp_path, text
    ):
        (tmp_path / "best").mkdir()
        (tmp_path / "best" / "best.json").write_text(text)
        evaluate(BestPreset(trainer, tmp_path, "best", FIGURE), 10, 7.0)
        assert step_of(tmp_path / "best") == 10

    def test_patience_counts_from_the_best(self, trainer, evaluate, tmp_path):
        action = BestPreset(trainer, tmp_path, "best", FIGURE, patience=2)
        for step, loss in ((1, 3.0), (2, 3.1), (3, 2.9), (4, 2.9)):
            evaluate(action, step, loss)
        action.check()
        message = (
            r"^no evaluation since step 3 was better than 2\.9000 nats: "
            r"training stops at step 5 \(trainer\.early_stopping_patience=2\)"
        )
        evaluate(action, 5, 3.0)
        with pytest.raises(StopEarlyError, match=message):
            action.check()
        # A run that is started again knows.
        with pytest.raises(StopEarlyError, match=message):
            BestPreset(trainer, tmp_path, "best", FIGURE, patience=2).check()
        BestPreset(trainer, tmp_path, "best", FIGURE, patience=3).check()


def test_a_run_stops_early_and_keeps_the_best(make_params, tmp_path, capsys):
    """Given noise, which a model learns by heart, then validation gets worse
    and training stops long before its last step."""
    params = make_params(learning_rate=0.05, steps=1000)
    params.override(
        {
            "trainer": {
                "steps_per_loop": 4,
                "summary_interval": 4,
                "checkpoint_interval": 1000,
                "validation_interval": 4,
                "early_stopping_patience": 2,
            }
        }
    )
    trainer = run_experiment(params, "train_and_eval", str(tmp_path / "run"))
    step = int(trainer.global_step)
    assert 8 < step < 1000
    printed = capsys.readouterr().out
    assert f"training stops at step {step}" in printed
    assert f"best model: {tmp_path}/run/best (step {step - 8}," in printed
    # It has the weights of the checkpoint of that step, if it is there still.
    best = lrm.TransformerXLLanguageModel.from_preset(tmp_path / "run/best")
    assert best.spans == trainer.model.spans
    # Nothing of the training is lost, and the last evaluation is told.
    assert tf.train.latest_checkpoint(tmp_path / "run").endswith(f"-{step}")
    weights = [np.array(weight) for weight in trainer.model.weights]
    # And when it is started again, it does not train.
    again = run_experiment(params, "train_and_eval", str(tmp_path / "run"))
    assert int(again.global_step) == step
    assert "training stops at step" in capsys.readouterr().out
    preset = lrm.TransformerXLLanguageModel.from_preset(tmp_path / "run/preset")
    for old, new in zip(weights, preset.weights, strict=True):
        np.testing.assert_array_equal(new, old)


def test_a_run_that_was_killed_in_its_last_evaluation_is_finished(
    make_params, tmp_path
):
    """Given a run whose last checkpoint is there, but no preset and no best
    weights, when it is started again, then they are made."""
    params = make_params(steps=4)
    folder = tmp_path / "run"
    run_experiment(params, "train_and_eval", str(folder))
    for name in ("best", "preset"):
        shutil.rmtree(folder / name)
    trainer = run_experiment(params, "train_and_eval", str(folder))
    assert int(trainer.global_step) == 4
    for name in ("best", "preset"):
        model = lrm.TransformerXLLanguageModel.from_preset(folder / name)
        for old, new in zip(trainer.model.weights, model.weights, strict=True):
            np.testing.assert_array_equal(new, old)


def test_evaluation_beside_a_run_follows_it(make_params, tmp_path, capsys):
    """Given checkpoints of a finished run, then continuous evaluation ends
    with the last one and keeps the best."""
    params = make_params(steps=8)
    params.override({"trainer": {"best_checkpoint_export_subdir": ""}})
    model_dir = str(tmp_path / "run")
    run_experiment(params, "train", model_dir)
    assert not (tmp_path / "run" / "best").exists()
    params.override(
        {
            "trainer": {
                "best_checkpoint_export_subdir": "best",
                "continuous_eval_timeout": 1,
            }
        }
    )
    capsys.readouterr()
    run_experiment(params, "continuous_eval", model_dir)
    assert "best model: " in capsys.readouterr().out
    record = json.loads((tmp_path / "run/best/best.json").read_text())
    assert record["step"] == record["last_step"] == 8
