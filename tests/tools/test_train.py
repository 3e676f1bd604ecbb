"""Tests of tools/train.py: a run, going on with it, and what it refuses."""

import os
import signal
import time

import numpy as np
import pytest
import tensorflow as tf

import official_lrm as lrm

TRAIN = "tools/train.py"


def weights(preset):
    model = lrm.TransformerXLLanguageModel.from_preset(preset)
    return {weight.path: np.array(weight) for weight in model.weights}


def positions(run, step):
    """Of the lanes, as saved with a checkpoint."""
    reader = tf.train.load_checkpoint(
        str(run / f"ckpt-{step}.memories-00000-of-00001")
    )
    return reader.get_tensor("replica_00/position").tolist()


def saved_step(folder):
    newest = tf.train.latest_checkpoint(folder) or "none-0"
    return int(newest.rsplit("-", 1)[1])


class TestRun:
    def test_it_succeeds_and_tells_what_it_trains(self, trained, text_file):
        assert trained.status == 0
        lines = trained.stdout.splitlines()
        assert lines[0].endswith("23 long")
        assert lines[2].endswith("=   5")
        assert lines[3] == "model:  3 layers, 8,709 parameters, float32"
        assert f"corpus: text {text_file}" in lines
        assert lines[6].startswith("train:  4 steps of 2 x 7 = 14 tokens")
        assert lines[-1] == f"trained model: {trained.preset}"
        progress = trained.stderr.splitlines()
        assert progress[-2].startswith("train  4/4  100%")
        assert progress[-1].startswith("evaluate  3/3  100%")

    def test_it_leaves_what_the_documentation_says(self, trained):
        names = set(os.listdir(trained.path))
        assert {"params.yaml", "preset", "train", "validation"} <= names
        assert {"checkpoint", "ckpt-2.index", "ckpt-4.index"} <= names
        assert sorted(os.listdir(trained.preset)) == [
            "config.json",
            "model.weights.h5",
            "tokenizer.json",
        ]
        assert positions(trained.path, 4) == [28, 28]

    def test_its_events_hold_the_loss(self, trained):
        (name,) = os.listdir(trained.path / "train")
        tags = {
            value.tag
            for event in tf.compat.v1.train.summary_iterator(
                str(trained.path / "train" / name)
            )
            for value in event.summary.value
        }
        assert {"bpc", "training_loss", "learning_rate"} <= tags


class TestRunAgain:
    def test_it_goes_on_and_nothing_is_lost(
        self, call_tool, trained, train_flags, run_copy, tmp_path
    ):
        # Given a run of 4 steps that goes on to 6, and one of 6 at once,
        whole = tmp_path / "whole"
        flags = train_flags(trainer__train_steps=6)
        again = call_tool(TRAIN, *flags, f"--model_dir={run_copy}")
        at_once = call_tool(TRAIN, *flags, f"--model_dir={whole}")
        assert (again.status, at_once.status) == (0, 0)
        assert "step:      4 | training until step 6" in again.stdout
        assert "step:      0 |" not in again.stdout
        assert "step:      0 | training until step 4" in at_once.stdout
        # then they end in the same weights and memories,
        expected = weights(whole / "preset")
        for path, value in weights(run_copy / "preset").items():
            np.testing.assert_allclose(value, expected[path], atol=1e-6)
        assert positions(run_copy, 6) == positions(whole, 6) == [42, 42]
        # which are not those after 4 steps.
        before = weights(trained.preset)
        assert any(
            np.max(np.abs(before[path] - value)) > 1e-4
            for path, value in expected.items()
        )

    def test_there_may_be_nothing_left_to_do(
        self, call_tool, trained, train_flags, run_copy
    ):
        result = call_tool(TRAIN, *train_flags(), f"--model_dir={run_copy}")
        assert result.status == 0
        assert "Traceback" not in result.stderr
        expected = weights(trained.preset)
        for path, value in weights(run_copy / "preset").items():
            np.testing.assert_array_equal(value, expected[path])
        assert positions(run_copy, 4) == [28, 28]

    def test_a_run_is_interrupted_in_one_line_and_goes_on(
        self, start_tool, finish_tool, call_tool, train_flags, tmp_path
    ):
        # Given a run that is interrupted after its second checkpoint,
        flags = train_flags(trainer__train_steps=10**6)
        process = start_tool(TRAIN, *flags, f"--model_dir={tmp_path}")
        # The file `checkpoint` commits what ckpt-4.index begins.
        while saved_step(tmp_path) < 4:
            assert process.poll() is None, finish_tool(process)
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        result = finish_tool(process)
        assert result.status == 130
        assert "Traceback" not in result.stderr
        assert result.stderr.splitlines()[-1] == "train.py: interrupted"
        # when it is started again, then it goes on.
        step = saved_step(tmp_path)
        assert step >= 4
        flags = train_flags(trainer__train_steps=step + 2)
        again = call_tool(TRAIN, *flags, f"--model_dir={tmp_path}")
        assert again.status == 0
        assert f"| training until step {step + 2}" in again.stdout
        assert positions(tmp_path, step + 2) == [7 * (step + 2)] * 2


class TestSurvival:
    def start_endless(self, start_tool, finish_tool, flags, model_dir):
        process = start_tool(TRAIN, *flags, f"--model_dir={model_dir}")
        while saved_step(model_dir) < 2:
            assert process.poll() is None, finish_tool(process)
            time.sleep(0.05)
        return process

    def test_sigterm_saves_the_step_in_flight_and_exits_with_0(
        self, start_tool, finish_tool, call_tool, train_flags, tmp_path
    ):
        # Given a run that saves only now and then, in the middle of a loop,
        flags = train_flags(
            trainer__train_steps=10**6,
            trainer__steps_per_loop=10**5,
            trainer__summary_interval=10**5,
            trainer__checkpoint_interval=10**5,
            trainer__validation_interval=10**6,
        )
        process = start_tool(TRAIN, *flags, f"--model_dir={tmp_path}")
        while not (tmp_path / "params.yaml").exists():
            assert process.poll() is None, finish_tool(process)
            time.sleep(0.05)
        time.sleep(5)
        # when it gets SIGTERM,
        sent = time.monotonic()
        process.send_signal(signal.SIGTERM)
        result = finish_tool(process)
        seconds = time.monotonic() - sent
        # then it ends well and has saved,
        assert result.status == 0
        assert "SIGTERM: stops after the step in flight" in result.stderr
        step = saved_step(tmp_path)
        assert 1 <= step < 10**5
        assert result.stdout.splitlines()[-1] == (
            f"stopped at step {step:,}, which is saved; the same command goes "
            "on from there."
        )
        print(f"{seconds:.2f} s from SIGTERM to the exit, step {step} saved")
        # without what a run leaves that came to its end.
        names = {name.split(".")[0] for name in os.listdir(tmp_path)}
        assert names == {
            "checkpoint",
            f"ckpt-{step}",
            "params",
            "tokenizer",
            "train",
        }
        again = call_tool(
            TRAIN,
            *train_flags(trainer__train_steps=step + 2),
            f"--model_dir={tmp_path}",
        )
        assert again.status == 0
        assert positions(tmp_path, step + 2) == [7 * (step + 2)] * 2

    def test_one_run_at_a_time_and_evaluations_beside_it(
        self, start_tool, finish_tool, call_tool, train_flags, tmp_path
    ):
        flags = train_flags(
            trainer__train_steps=10**6, trainer__validation_interval=10**6
        )
        process = self.start_endless(start_tool, finish_tool, flags, tmp_path)
        try:
            second = call_tool(TRAIN, *flags, f"--model_dir={tmp_path}")
            assert second.status == 1
            assert second.stderr.splitlines()[-1].startswith(
                f"train.py: error: {tmp_path} is being trained by process "
                f"{process.pid} on "
            )
            evaluated = call_tool(
                TRAIN, *flags, f"--model_dir={tmp_path}", "--mode=eval"
            )
            assert evaluated.status == 0
        finally:
            # No lock outlives what held it.
            process.kill()
            finish_tool(process)
        flags = train_flags(
            trainer__train_steps=saved_step(tmp_path) + 2,
            trainer__validation_interval=10**6,
        )
        assert call_tool(TRAIN, *flags, f"--model_dir={tmp_path}").status == 0
        assert not (tmp_path / "train.lock").exists()

    def test_a_torn_checkpoint_costs_the_steps_since_the_one_before(
        self, call_tool, train_flags, damaged_run, caplog
    ):
        result = call_tool(
            TRAIN,
            *train_flags(trainer__train_steps=6),
            f"--model_dir={damaged_run}",
        )
        assert result.status == 0
        assert f"restored from checkpoint: {damaged_run}/ckpt-2" in (
            result.stdout
        )
        assert positions(damaged_run, 6) == [42, 42]

    def test_a_loss_that_is_no_number_leaves_the_last_checkpoint(
        self, call_tool, train_flags, run_copy
    ):
        rate = "trainer__optimizer_config__learning_rate__cosine__"
        result = call_tool(
            TRAIN,
            *train_flags(
                trainer__train_steps=400,
                **{f"{rate}initial_learning_rate": 1e30},
            ),
            f"--model_dir={run_copy}",
        )
        assert result.status == 1
        line = result.stderr.splitlines()[-1]
        assert "nothing was saved since the last checkpoint" in line
        assert np.isfinite(
            tf.train.load_checkpoint(
                str(run_copy / f"ckpt-{saved_step(run_copy)}")
            ).get_tensor(
                "model/transformer_xl.Scontent_bias/.ATTRIBUTES/VARIABLE_VALUE"
            )
        ).all()

    def test_a_text_that_vanished_leaves_the_run_as_it_is(
        self, refusal, train_flags, run_copy, tmp_path
    ):
        names = sorted(os.listdir(run_copy))
        line = refusal(
            TRAIN,
            *train_flags(
                trainer__train_steps=6,
                task__corpus__input_path=tmp_path / "gone.txt",
            ),
            f"--model_dir={run_copy}",
        )
        assert "gone.txt" in line
        assert sorted(os.listdir(run_copy)) == names


class TestModes:
    def test_dry_run_writes_nothing(self, call_tool, train_flags, tmp_path):
        model_dir = tmp_path / "run"
        result = call_tool(
            TRAIN, *train_flags(), f"--model_dir={model_dir}", "--dry_run"
        )
        assert result.status == 0
        assert not result.stderr
        assert "model:  3 layers, 8,709 parameters, float32" in result.stdout
        assert not model_dir.exists()

    def test_files_go_after_the_experiment_and_before_flags(
        self, call_tool, tmp_path
    ):
        first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
        first.write_text("{task: {model: {num_layers: 5, num_heads: 3}}}")
        second.write_text("{task: {model: {num_layers: 7}}}")
        result = call_tool(
            TRAIN,
            "--experiment=lrm_quickstart",
            f"--config_file={first}",
            f"--config_file={second}",
            "--params_override=task.train_data.segment_length=13",
            "--dry_run",
        )
        assert result.status == 0
        assert "model:  7 layers, " in result.stdout
        assert "steps of 8 x 13 = 104 tokens" in result.stdout
        assert result.stdout.count("long\n") == 1

    def test_evaluation_changes_nothing(self, call_tool, train_flags, run_copy):
        names = sorted(os.listdir(run_copy))
        result = call_tool(
            TRAIN, *train_flags(), f"--model_dir={run_copy}", "--mode=eval"
        )
        assert result.status == 0
        assert "'bpc': " in result.stdout
        assert "'tokens': 42" in result.stdout
        assert "training until" not in result.stdout
        assert "trained model" not in result.stdout
        assert sorted(os.listdir(run_copy)) == names

    def test_a_run_may_start_from_a_preset(
        self, call_tool, trained, train_flags, tmp_path
    ):
        # Given other spans and a learning rate of nothing,
        rate = "trainer__optimizer_config__learning_rate__cosine__"
        flags = train_flags(
            task__model__spans__long=13,
            trainer__train_steps=2,
            **{f"{rate}initial_learning_rate": 0},
        )
        result = call_tool(
            TRAIN,
            *flags,
            f"--model_dir={tmp_path}",
            f"--init_from={trained.preset}",
            "--mode=train",
        )
        # when a run has started from a preset, then it has its weights.
        assert result.status == 0
        expected = weights(trained.preset)
        for path, value in weights(tmp_path / "preset").items():
            np.testing.assert_array_equal(value, expected[path])
        model = lrm.TransformerXLLanguageModel.from_preset(tmp_path / "preset")
        assert model.spans.lengths == (5, 5, 13)


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (
                {"task__model__spans__placement": "everywhere"},
                ("placement", "'everywhere'", "interleaved, first, last"),
            ),
            (
                {"task__model__spans__num_long": 4},
                ("num_long", "got 4", "from 0 to num_layers=3"),
            ),
            (
                {"task__model__spans__lengths": "[5,7]"},
                ("task.model.spans.lengths", "[5, 7]", "3 layers"),
            ),
            (
                {"task__model__spans__lengths": "[5,-7,11]"},
                ("task.model.spans", "-7", "not be negative"),
            ),
            ({"task__model__depth": 3}, ("params_override", "'depth'")),
            (
                {
                    "trainer__optimizer_config__learning_rate__cosine__"
                    "initial_learning_rate": "fast"
                },
                ("initial_learning_rate", "fast", "must be a number"),
            ),
            (
                {"trainer__train_steps": "many"},
                ("trainer.train_steps", "'many'", "must be an integer"),
            ),
            (
                {"runtime__distribution_strategy": "psychic"},
                ("distribution_strategy", "'psychic'", "one_device"),
            ),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_wrong_configs(self, refusal, train_flags, changes, words):
        line = refusal(TRAIN, *train_flags(**changes), "--dry_run")
        for word in words:
            assert word in line

    def test_an_unknown_experiment(self, refusal):
        line = refusal(TRAIN, "--experiment=lrm_enwik9")
        assert "'lrm_enwik9'" in line
        assert "lrm_quickstart" in line
        assert "lrm_enwik8" in line

    def test_no_experiment(self, refusal, tmp_path):
        line = refusal(TRAIN, f"--model_dir={tmp_path}")
        assert "experiment must be one of" in line

    def test_no_model_dir(self, refusal, train_flags):
        assert "--model_dir must be given" in refusal(TRAIN, *train_flags())

    def test_a_missing_config_file(self, refusal, tmp_path):
        line = refusal(
            TRAIN,
            "--experiment=lrm_quickstart",
            f"--config_file={tmp_path / 'no.yaml'}",
        )
        assert f"no config file at {tmp_path / 'no.yaml'}" in line

    @pytest.mark.parametrize("content", ["just words", "{task: {", "[5, 7]"])
    def test_a_config_file_of_something_else(self, refusal, tmp_path, content):
        file = tmp_path / "wrong.yaml"
        file.write_text(content, encoding="utf-8")
        line = refusal(
            TRAIN, "--experiment=lrm_quickstart", f"--config_file={file}"
        )
        assert f"config file {file} cannot be applied" in line

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (
                {"task__corpus__name": "enwik9"},
                ("corpus 'enwik9'", "python_stdlib", "text"),
            ),
            (
                {"task__corpus__input_path": "/no/such/file.txt"},
                ("'/no/such/file.txt' does not exist",),
            ),
            (
                {"task__corpus__input_path": None},
                ("corpus 'text' needs a path",),
            ),
            (
                {"task__model__vocab_size": 101},
                ("byte 1", "allowed are 0 to 100"),
            ),
            (
                {"task__train_data__segment_length": 40009},
                ("too few", "segment_length=40009", "at least 40011"),
            ),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_wrong_texts(self, refusal, train_flags, tmp_path, changes, words):
        flags = train_flags(**changes)
        line = refusal(TRAIN, *flags, f"--model_dir={tmp_path / 'run'}")
        for word in words:
            assert word in line
        assert "configurable" not in line

    def test_a_model_dir_that_cannot_be(self, refusal, train_flags, text_file):
        line = refusal(
            TRAIN, *train_flags(), f"--model_dir={text_file / 'run'}"
        )
        assert str(text_file) in line

    def test_a_preset_that_is_none(self, refusal, train_flags, tmp_path):
        line = refusal(
            TRAIN,
            *train_flags(),
            f"--model_dir={tmp_path / 'run'}",
            f"--init_from={tmp_path / 'nowhere'}",
        )
        assert str(tmp_path / "nowhere") in line

    def test_a_preset_of_other_sizes(
        self, refusal, trained, train_flags, tmp_path
    ):
        line = refusal(
            TRAIN,
            *train_flags(task__model__inner_size=19),
            f"--model_dir={tmp_path / 'run'}",
            f"--init_from={trained.preset}",
        )
        assert str(trained.preset) in line
        assert len(line) < 700

    def test_a_truncated_checkpoint_is_not_evaluated(
        self, refusal, train_flags, damaged_run
    ):
        content = (damaged_run / "params.yaml").read_bytes()
        line = refusal(
            TRAIN,
            *train_flags(trainer__train_steps=6),
            f"--model_dir={damaged_run}",
            "--mode=eval",
        )
        assert str(damaged_run / "ckpt-4") in line
        assert (damaged_run / "params.yaml").read_bytes() == content

    def test_a_checkpoint_of_other_sizes(self, refusal, train_flags, run_copy):
        line = refusal(
            TRAIN,
            *train_flags(task__model__inner_size=19),
            f"--model_dir={run_copy}",
        )
        assert str(run_copy / "ckpt-4") in line

    def test_a_checkpoint_of_another_text(
        self, refusal, train_flags, run_copy, tmp_path
    ):
        other = tmp_path / "other.txt"
        other.write_text("something else " * 1009, encoding="utf-8")
        line = refusal(
            TRAIN,
            *train_flags(
                task__corpus__input_path=other, trainer__train_steps=6
            ),
            f"--model_dir={run_copy}",
        )
        assert "another text" in line

    def test_an_unknown_mode(self, refusal, train_flags):
        line = refusal(TRAIN, *train_flags(), "--mode=learn")
        assert "--mode=learn" in line
        assert "train_and_eval" in line
