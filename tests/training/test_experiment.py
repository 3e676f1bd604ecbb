"""A run by config, as tools/train.py does it."""

import os
import shutil
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

import official_lrm as lrm
from official_lrm.training import load_model, read_params, run_experiment
from official_lrm.training.experiment import check_run
from official_lrm.training.params import write_params


@pytest.fixture
def params(make_params):
    params = make_params(steps=6)
    params.trainer.override(
        {
            "steps_per_loop": 2,
            "summary_interval": 2,
            "checkpoint_interval": 2,
            "validation_interval": 4,
            "validation_steps": 2,
            "max_to_keep": 2,
        }
    )
    return params


def _scalars(folder):
    values = {}
    for name in os.listdir(folder):
        for event in tf.compat.v1.train.summary_iterator(
            os.path.join(folder, name)
        ):
            for value in event.summary.value:
                values.setdefault(value.tag, {})[event.step] = float(
                    tf.make_ndarray(value.tensor)
                )
    return values


def test_a_run_leaves_checkpoints_summaries_params_and_a_preset(
    tmp_path, params
):
    folder = str(tmp_path / "run")

    trainer = run_experiment(params, "train_and_eval", folder)

    assert int(trainer.global_step) == 6
    assert {name.split(".")[0] for name in os.listdir(folder)} == {
        "best",
        "checkpoint",
        "ckpt-4",
        "ckpt-6",
        "params",
        "preset",
        "tokenizer",
        "train",
        "validation",
    }
    train = _scalars(os.path.join(folder, "train"))
    assert set(train) == {
        "training_loss",
        "bpc",
        "learning_rate",
        "gradient_norm",
        "tokens_per_second",
    }
    assert set(train["bpc"]) == {2, 4, 6}
    validation = _scalars(os.path.join(folder, "validation"))
    assert set(validation["bpc"]) == {4, 6}
    assert read_params(folder).as_dict() == params.as_dict()
    preset = lrm.TransformerXLLanguageModel.from_preset(folder + "/preset")
    newest = load_model(folder)
    assert preset.spans == newest.spans == trainer.model.spans
    for a, b in zip(preset.weights, newest.weights, strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))


def test_a_longer_run_goes_on_where_the_shorter_one_ended(tmp_path, params):
    """Given the same schedule, when a run of 6 steps is asked for in two
    parts, then it ends with the weights of one in one part."""
    params.trainer.optimizer_config.learning_rate.cosine.decay_steps = 4
    whole = run_experiment(params, "train", str(tmp_path / "whole"))

    params.trainer.train_steps = 4
    run_experiment(params, "train", str(tmp_path / "parts"))
    params.trainer.train_steps = 6
    parts = run_experiment(params, "train", str(tmp_path / "parts"))

    for a, b in zip(whole.model.weights, parts.model.weights, strict=True):
        np.testing.assert_allclose(np.array(a), np.array(b), atol=1e-6)
    np.testing.assert_array_equal(
        whole.memories["position"], parts.memories["position"]
    )


def test_evaluation_reads_the_newest_checkpoint(tmp_path, params):
    folder = str(tmp_path / "run")
    trained = run_experiment(params, "train_and_eval", folder)
    expected = trained.evaluate(tf.constant(2))

    evaluated = run_experiment(params, "eval", folder)

    assert int(evaluated.global_step) == 6
    assert evaluated.evaluate(tf.constant(2)) == expected


def test_fine_tuning_starts_from_a_preset(tmp_path, params):
    first = run_experiment(params, "train", str(tmp_path / "first"))
    params.task.init_checkpoint = str(tmp_path / "first" / "preset")
    cosine = params.trainer.optimizer_config.learning_rate.cosine
    cosine.initial_learning_rate = 0.0

    second = run_experiment(params, "train", str(tmp_path / "second"))

    for a, b in zip(first.model.weights, second.model.weights, strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))


def test_what_cannot_be_run_is_refused(tmp_path, params):
    with pytest.raises(ValueError, match="mode must be one of train"):
        run_experiment(params, "traineval", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no checkpoint to evaluate"):
        run_experiment(params, "eval", str(tmp_path))
    params.trainer.train_steps = 0
    with pytest.raises(ValueError, match="train_steps must be at least 1"):
        run_experiment(params, "train", str(tmp_path))


def test_a_dry_run_finds_what_a_run_would(params):
    assert "257" not in check_run(params)
    for section, name, value, message in (
        ("corpus", "name", "tex", "unknown corpus 'tex'"),
        ("model", "vocab_size", 257, "vocab_size .* 257"),
        ("train_data", "global_batch_size", 9999, "9999"),
        ("train_data", "split", "training", "training"),
    ):
        wrong = params.replace()
        setattr(getattr(wrong.task, section), name, value)
        with pytest.raises(ValueError, match=message):
            check_run(wrong)


@pytest.mark.parametrize("what", ["summaries", "best preset"])
def test_a_full_disk_names_the_last_good_checkpoint(
    tmp_path, params, monkeypatch, what
):
    """Given a disk that is full from step 4 on, when something else than a
    checkpoint is written to it, then one line names what and the last good
    checkpoint, and the run goes on from there when there is space."""
    folder = str(tmp_path / "run")

    def fail(*_, **__):
        raise tf.errors.ResourceExhaustedError(
            None, None, "{{function_node x}} events; No space left on device"
        )

    with monkeypatch.context() as patch:
        if what == "summaries":
            real, calls = tf.summary.flush, []

            def flush(writer):
                calls.append(writer)
                return real(writer) if len(calls) < 2 else fail()

            patch.setattr(tf.summary, "flush", flush)
            expected = f"{folder}/train cannot be written", f"{folder}/ckpt-2"
        else:
            patch.setattr(shutil, "disk_usage", lambda _: mock.Mock(free=1))
            expected = f"{folder}/best cannot be written", f"{folder}/ckpt-4"
        with pytest.raises(ValueError, match="No space left") as error:
            run_experiment(params, "train_and_eval", folder)

    assert str(error.value).startswith(expected[0])
    assert str(error.value).endswith(f"last good checkpoint is {expected[1]}.")
    assert "\n" not in str(error.value) and "{{" not in str(error.value)
    trainer = run_experiment(params, "train_and_eval", folder)
    assert int(trainer.global_step) == 6


def test_folders_that_hold_no_model(tmp_path, params):
    with pytest.raises(FileNotFoundError, match="neither a model_dir"):
        load_model(str(tmp_path))
    write_params(params, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no checkpoint yet"):
        load_model(str(tmp_path))
    (tmp_path / "params.yaml").write_text("task: [")
    with pytest.raises(ValueError, match="cannot be read") as error:
        read_params(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_refused_run_leaves_the_folder_as_it_was(tmp_path, params):
    """Given a trained model_dir, when runs of another model, of another text
    or of fewer steps are started in it, then params.yaml stays."""
    folder = str(tmp_path / "run")
    run_experiment(params, "train", folder)
    expected = read_params(folder).as_dict()

    wider = params.replace()
    wider.task.model.inner_size = 48
    with pytest.raises(ValueError, match="is of another model"):
        run_experiment(wider, "train", folder)
    other = params.replace()
    (tmp_path / "other.txt").write_bytes(b"another text. " * 99)
    other.task.corpus.input_path = str(tmp_path / "other.txt")
    with pytest.raises(ValueError, match="trained on another text"):
        run_experiment(other, "train", folder)
    shorter = params.replace()
    shorter.trainer.train_steps = 3
    run_experiment(shorter, "train", folder)

    assert read_params(folder).as_dict() == expected


def test_summaries_come_at_their_interval(tmp_path, params):
    params.trainer.summary_interval = 4
    folder = str(tmp_path / "run")

    run_experiment(params, "train", folder)

    assert set(_scalars(os.path.join(folder, "train"))["bpc"]) == {4}


def test_a_preset_of_other_sizes_is_refused(tmp_path, params):
    run_experiment(params, "train", str(tmp_path / "first"))
    params.task.init_checkpoint = str(tmp_path / "first" / "preset")
    shallow = params.replace()
    shallow.task.model.num_layers = 2
    shallow.task.model.spans.lengths = [5, 0]

    with pytest.raises(ValueError, match="has 3 layers; the model has 2"):
        run_experiment(shallow, "train", str(tmp_path / "second"))
    params.task.model.inner_size = 48
    with pytest.raises(ValueError, match="inner_size 24; the model has 48"):
        run_experiment(params, "train", str(tmp_path / "third"))


def test_a_bfloat16_run_is_loaded_as_one(tmp_path, params):
    params.runtime.mixed_precision_dtype = "bfloat16"
    folder = str(tmp_path / "run")
    try:
        run_experiment(params, "train", folder)
    finally:
        keras.config.set_dtype_policy("float32")

    assert load_model(folder).compute_dtype == "bfloat16"
    assert load_model(folder, dtype="float32").compute_dtype == "float32"


def test_evaluations_do_not_depend_on_where_a_run_was_resumed(tmp_path, params):
    """Given a run that stopped between two evaluations, within a loop, when
    it goes on, then it evaluates and logs at the steps of one that did not."""
    params.trainer.override(
        {"steps_per_loop": 2, "validation_interval": 4, "train_steps": 10}
    )
    params.trainer.optimizer_config.learning_rate.cosine.decay_steps = 9
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    run_experiment(params, "train_and_eval", whole)
    first = params.replace()
    first.trainer.train_steps = 3
    run_experiment(first, "train", parts)

    run_experiment(params, "train_and_eval", parts)

    losses = [
        _scalars(os.path.join(folder, "validation"))["validation_loss"]
        for folder in (whole, parts)
    ]
    assert set(losses[0]) == {4, 8, 10}
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)
    for folder, logged in (
        (whole, {2, 4, 6, 8, 10}),
        (parts, {2, 4, 6, 8, 10}),
    ):
        steps = set(_scalars(os.path.join(folder, "train"))["bpc"])
        assert steps == logged
