"""The tokenizer of a run: written, read back, and never another one."""

import json
import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from official_lrm.data import ByteTokenizer, SymbolTokenizer
from official_lrm.training import (
    experiment,
    parse_params,
    read_tokenizer,
    run_experiment,
)
from official_lrm.training.loading import (
    check_tokenizer,
    load_model,
    write_tokenizer,
)

TEXT = b"no banana\n" * 60  # n 180, a 180, then o, space, b, newline
OTHER = b"boa banana\n" * 60  # a 240, b 120, n 120, then o, space, newline


def make_params(folder, kind, text=TEXT, **changes):
    path = folder / "text.txt"
    path.write_bytes(text)
    lanes = {"global_batch_size": 2, "segment_length": 7}
    config = {
        "task": {
            "model": {
                "vocab_size": 11 if kind == "symbols" else 256,
                "num_layers": 1,
                "hidden_size": 10,
                "num_heads": 2,
                "head_size": 3,
                "inner_size": 13,
                "spans": {"lengths": [5]},
            },
            "corpus": {
                "name": "text",
                "input_path": str(path),
                "tokenizer": kind,
            },
            "train_data": lanes,
            "validation_data": lanes,
        },
        "trainer": {
            "train_steps": 2,
            "steps_per_loop": 1,
            "summary_interval": 1,
            "checkpoint_interval": 1,
            "validation_steps": 1,
        },
    }
    params = parse_params("lrm_quickstart", params_override=json.dumps(config))
    params.override(changes)
    return params


@pytest.fixture(autouse=True)
def policy():
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of each kind. Leave them as they are."""
    folders = {}
    for kind in ("bytes", "symbols"):
        folder = tmp_path_factory.mktemp(kind)
        folders[kind] = folder / "run"
        run_experiment(make_params(folder, kind), "train", str(folder / "run"))
    return folders


@pytest.fixture
def copied(trained, tmp_path):
    """Returns copy(kind) -> a copy of that run, which may be changed."""
    return lambda kind: shutil.copytree(trained[kind], tmp_path / "run")


def contents(folder):
    return {
        name: (folder / name).read_bytes()
        for name in os.listdir(folder)
        if (folder / name).is_file()
    }


def symbols_in(folder):
    return bytes(json.loads((folder / "tokenizer.json").read_text())["symbols"])


class TestRun:
    def test_it_leaves_its_tokenizer(self, trained):
        assert symbols_in(trained["symbols"]) == b"nao b\n"
        assert symbols_in(trained["symbols"] / "preset") == b"nao b\n"
        config = json.loads((trained["bytes"] / "tokenizer.json").read_text())
        assert config == {"type": "bytes", "vocab_size": 256}

    @pytest.mark.parametrize("kind", ["bytes", "symbols"])
    def test_run_and_preset_hold_the_same(self, trained, kind):
        configs = [
            read_tokenizer(str(folder)).get_config()
            for folder in (trained[kind], trained[kind] / "preset")
        ]
        assert configs[0] == configs[1]
        assert configs[0]["type"] == kind

    def test_it_says_what_its_tokens_are(self, copied, tmp_path, capsys):
        run_experiment(
            make_params(tmp_path, "symbols"), "train", str(copied("symbols"))
        )
        expected = "tokens: 6 symbols; 5 ids of 11 stand for nothing"
        assert expected in capsys.readouterr().out.splitlines()
        text = experiment.check_run(make_params(tmp_path, "symbols"))
        assert expected in text.splitlines()
        text = experiment.check_run(make_params(tmp_path, "bytes"))
        assert "tokens: 256 bytes" in text.splitlines()


class TestGoingOn:
    def test_with_the_same_symbols(self, copied, tmp_path):
        run = copied("symbols")
        params = make_params(tmp_path, "symbols", trainer={"train_steps": 3})
        trainer = run_experiment(params, "train", str(run))
        assert int(trainer.global_step) == 3
        assert symbols_in(run) == symbols_in(run / "preset") == b"nao b\n"

    def test_a_run_of_bytes_from_before_there_was_a_file(
        self, copied, tmp_path
    ):
        run = copied("bytes")
        os.remove(run / "tokenizer.json")
        config = read_tokenizer(str(run)).get_config()
        assert config == {"type": "bytes", "vocab_size": 256}
        trainer = run_experiment(
            make_params(tmp_path, "bytes"), "train", str(run)
        )
        assert int(trainer.global_step) == 2

    def test_after_the_preset_it_began_with_is_gone(self, copied, tmp_path):
        run = copied("symbols")
        before = contents(run)
        params = make_params(
            tmp_path, "symbols", task={"init_checkpoint": "/no/preset"}
        )
        trainer = run_experiment(params, "train", str(run))
        assert int(trainer.global_step) == 2
        assert contents(run) == before

    @pytest.mark.parametrize(
        ("saved", "wanted"),
        [
            (b"nao b\n", None),
            (b"noa b\n", "id 1 was b'o' and is b'a'"),
            (b"nao \nb", "id 4 was b'\\n' and is b'b'"),
            (b"nao b", "it was 5 symbols and is 6 symbols"),
            (None, "it was 11 bytes and is 6 symbols"),
        ],
        ids=str,
    )
    def test_with_other_ids_is_refused(self, copied, tmp_path, saved, wanted):
        # Given a run whose file says other ids than its text,
        run = copied("symbols")
        tokenizer = ByteTokenizer(11) if saved is None else None
        write_tokenizer(tokenizer or SymbolTokenizer(saved), str(run))
        before = contents(run)
        params = make_params(tmp_path, "symbols")
        if wanted is None:
            run_experiment(params, "train", str(run))
            return
        # when it is to go on, then that is refused and nothing changes.
        params.trainer.train_steps = 3
        with pytest.raises(ValueError) as error:
            run_experiment(params, "train", str(run))
        message = str(error.value)
        assert message.startswith(
            f"{run} was trained with another vocabulary (tokenizer.json): "
            f"{wanted}. "
        )
        assert contents(run) == before

    def test_without_the_file_is_refused(self, copied, tmp_path):
        run = copied("symbols")
        os.remove(run / "tokenizer.json")
        message = f"^{run} holds no tokenizer.json, so which symbols"
        with pytest.raises(FileNotFoundError, match=message):
            read_tokenizer(str(run))
        params = make_params(tmp_path, "symbols", trainer={"train_steps": 3})
        with pytest.raises(FileNotFoundError, match=message):
            run_experiment(params, "train", str(run))

    def test_another_text_is_named_before_its_symbols(self, copied, tmp_path):
        params = make_params(
            tmp_path, "symbols", OTHER, trainer={"train_steps": 3}
        )
        with pytest.raises(ValueError, match="trained on another text"):
            run_experiment(params, "train", str(copied("symbols")))


class TestEvaluation:
    def test_another_text_is_read_with_the_ids_of_the_run(
        self, copied, tmp_path
    ):
        params = make_params(tmp_path, "symbols", OTHER)
        trainer = run_experiment(params, "eval", str(copied("symbols")))
        tokenizer = trainer.task.tokenizer
        assert bytes(tokenizer.get_config()["symbols"]) == b"nao b\n"

    def test_ids_that_a_waiting_evaluator_made_are_checked(
        self, copied, tmp_path, monkeypatch
    ):
        # Given an evaluator that was started before there was a checkpoint,
        monkeypatch.setattr(
            experiment, "_adopt_tokenizer", lambda *arguments: None
        )
        # when one comes that was trained with other ids, then it is refused.
        params = make_params(tmp_path, "symbols", OTHER)
        with pytest.raises(ValueError, match="id 0 was b'n' and is b'a'"):
            run_experiment(params, "eval", str(copied("symbols")))


class TestFile:
    @pytest.mark.parametrize(
        "tokenizer", [ByteTokenizer(7), SymbolTokenizer(b"\nab")], ids=repr
    )
    def test_it_may_be_on_any_file_system(self, tokenizer):
        folder = "ram://runs/first"
        write_tokenizer(tokenizer, folder)
        assert read_tokenizer(folder).get_config() == tokenizer.get_config()
        check_tokenizer(tokenizer, folder)
        assert tf.io.gfile.listdir(folder) == ["tokenizer.json"]

    def test_it_is_written_whole_or_not_at_all(self, tmp_path, monkeypatch):
        write_tokenizer(SymbolTokenizer(b"ab"), str(tmp_path))

        def fail(*arguments, **options):
            raise tf.errors.ResourceExhaustedError(None, None, "disk full")

        monkeypatch.setattr(tf.io.gfile, "rename", fail)
        with pytest.raises(ValueError, match=f"{tmp_path} cannot .*disk full"):
            write_tokenizer(SymbolTokenizer(b"ba"), str(tmp_path))
        assert symbols_in(tmp_path) == b"ab"

    def test_a_damaged_one_is_named(self, copied):
        run = copied("symbols")
        for folder in (run, run / "preset"):
            file = folder / "tokenizer.json"
            file.write_text(file.read_text()[:20])
            with pytest.raises(ValueError, match=f"^{file} is not JSON"):
                read_tokenizer(str(folder))

    def test_a_preset_may_have_none(self, copied):
        preset = copied("symbols") / "preset"
        os.remove(preset / "tokenizer.json")
        assert read_tokenizer(str(preset)) is None

    def test_a_folder_of_something_else(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="neither a model_dir"):
            read_tokenizer(str(tmp_path))


def test_a_checkpoint_may_be_loaded_in_another_dtype(trained):
    path = str(trained["bytes"])
    own, half = load_model(path), load_model(path, dtype="bfloat16")
    assert half.compute_dtype == "bfloat16"
    assert half.backbone.content_bias.dtype == "bfloat16"
    for weight, rounded in zip(own.weights, half.weights, strict=True):
        assert weight.dtype in ("float32", "uint32")
        difference = np.array(weight) - np.array(rounded).astype(weight.dtype)
        assert np.max(np.abs(difference)) <= 2**-8 * np.max(np.abs(weight))
