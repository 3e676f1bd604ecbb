"""Checkpoints hold everything; a resumed run is the run."""

import logging as python_logging
import os
import types
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.training import load_model
from official_lrm.training.memory_files import (
    read_memories,
    write_memories,
)
from official_lrm.training.params import write_params
from official_lrm.training.workers import Workers


def test_a_checkpoint_holds_every_variable(
    tmp_path, make_params, make_trainer, make_manager, train
):
    """Given a trained model, when it is saved, then each variable of model
    and optimizer is in the checkpoint with its value."""
    trainer = make_trainer(make_params(dropout=0.1, untie_biases=True))
    train(trainer, 2)

    path = make_manager(trainer, tmp_path).save(2)

    reader = tf.train.load_checkpoint(path)
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    saved = {
        name.removesuffix(suffix).replace(".S", "/"): name
        for name in reader.get_variable_to_shape_map()
        if name.endswith(suffix)
    }
    expected = {
        f"{kind}/{variable.path}": variable
        for kind, owner in (
            ("model", trainer.model),
            ("optimizer", trainer.optimizer),
        )
        for variable in owner.variables
    }
    # 3 layers of 5 + 4 + 4 kernels, norms and biases; 2 biases, table,
    # softmax bias, dropout seed; 2 slots each, iterations, learning rate.
    assert len(trainer.model.variables) == 3 * 13 + 4 + 1
    assert len(expected) == 44 + 2 * 43 + len({"iterations"})
    assert set(saved) == {*expected, "global_step"}
    for name, variable in expected.items():
        np.testing.assert_array_equal(
            reader.get_tensor(saved[name]), np.array(variable)
        )


def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path, make_params, make_trainer, make_manager, train
):
    """Given dropout and uneven spans, when a run stops after a checkpoint
    and another goes on from it, then losses, weights, optimizer slots and
    memories are the same bit for bit."""
    params = make_params(dropout=0.2, attention_dropout=0.2)
    whole = make_trainer(params)
    expected = train(whole, 11)

    first = make_trainer(params)
    losses = train(first, 5)
    make_manager(first, tmp_path).save(5)
    del first
    params.task.seed = 1
    second = make_trainer(params)
    assert make_manager(second, tmp_path).restore_or_initialize()
    losses += train(second, 6)

    assert losses == expected
    for ours, theirs in (
        (whole.model, second.model),
        (whole.optimizer, second.optimizer),
    ):
        for a, b in zip(ours.variables, theirs.variables, strict=True):
            np.testing.assert_array_equal(np.array(a), np.array(b), a.path)
    for name, value in whole.memories.items():
        np.testing.assert_array_equal(value, second.memories[name])


def test_bfloat16_memories_survive(
    tmp_path, make_params, make_trainer, make_manager, train
):
    params = make_params(dtype="bfloat16")
    first = make_trainer(params)
    train(first, 3)
    path = make_manager(first, tmp_path).save(3)

    (memories,) = read_memories(
        path,
        {"num_lanes": 3, "num_replicas": 1, "memory_files": 1},
        Workers(tf.distribute.get_strategy()),
        first.model.memory_specs(3),
    )

    assert memories["memory_00"].dtype == tf.bfloat16
    for name, value in first.memories.items():
        np.testing.assert_array_equal(memories[name], value)


def test_another_corpus_is_refused(
    tmp_path, make_params, make_trainer, make_manager, train
):
    first = make_trainer(make_params())
    train(first, 1)
    make_manager(first, tmp_path / "run").save(1)
    other = make_trainer(make_params(text=b"another text. " * 99))

    with pytest.raises(ValueError, match="corpus_fingerprint") as error:
        make_manager(other, tmp_path / "run").restore_or_initialize()

    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lanes": 4}, "num_lanes 3 -> 4"),
        ({"segment_length": 11}, "segment_length 7 -> 11"),
        ({"dtype": "bfloat16"}, "dtype_policy float32 -> mixed_bfloat16"),
        ({"spans": (5, 0, 17)}, r"spans \[5, 0, 13\] -> \[5, 0, 17\]"),
    ],
)
def test_other_lanes_or_spans_start_cold_and_say_so(
    tmp_path,
    make_params,
    make_trainer,
    make_manager,
    train,
    caplog,
    change,
    reason,
):
    first = make_trainer(make_params())
    train(first, 2)
    make_manager(first, tmp_path / "run").save(2)
    second = make_trainer(make_params(**change))

    with caplog.at_level(python_logging.WARNING, "absl"):
        make_manager(second, tmp_path / "run").restore_or_initialize()

    assert any("memories start empty" in message for message in caplog.messages)
    assert second.memories is None
    import re

    assert re.search(reason, " ".join(caplog.messages))
    train(second, 1)
    segment_length = change.get("segment_length", 7)
    assert set(np.array(second.memories["position"])) == {segment_length}
    assert int(second.global_step) == 3, "weights and step are restored"


def test_a_truncated_checkpoint_is_one_line(
    tmp_path, make_params, make_trainer, make_manager, train
):
    params = make_params()
    trainer = make_trainer(params)
    train(trainer, 1)
    write_params(params, str(tmp_path))
    path = make_manager(trainer, tmp_path).save(1)
    data = f"{path}.data-00000-of-00001"
    with open(data, "r+b") as stream:
        stream.truncate(os.path.getsize(data) // 2)

    with pytest.raises(ValueError, match="cannot be read") as error:
        make_manager(make_trainer(params), tmp_path).restore_or_initialize()
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="cannot be read") as error:
        load_model(str(tmp_path))
    assert path in str(error.value)


def test_truncated_memories_are_one_line(
    tmp_path, make_params, make_trainer, make_manager, train
):
    params = make_params()
    trainer = make_trainer(params)
    train(trainer, 1)
    path = make_manager(trainer, tmp_path).save(1)
    data = f"{path}.memories-00000-of-00001.data-00000-of-00001"
    with open(data, "r+b") as stream:
        stream.truncate(8)

    with pytest.raises(ValueError, match="memories .* cannot be read"):
        make_manager(make_trainer(params), tmp_path).restore_or_initialize()


def test_old_checkpoints_go_with_their_memories(
    tmp_path, make_params, make_trainer, make_manager, train
):
    trainer = make_trainer(make_params())
    folder = tmp_path / "run"
    manager = make_manager(trainer, folder, max_to_keep=2)

    for step in (1, 2, 3):
        train(trainer, 1)
        manager.save(step)

    prefixes = {name.split(".")[0] for name in os.listdir(folder)}
    assert prefixes == {"checkpoint", "ckpt-2", "ckpt-3"}
    assert len(os.listdir(folder)) == 1 + 2 * 4


def test_load_model_reads_the_weights_and_takes_other_spans(
    tmp_path, make_params, make_trainer, make_manager, train
):
    params = make_params()
    trainer = make_trainer(params)
    train(trainer, 2)
    write_params(params, str(tmp_path))
    make_manager(trainer, tmp_path).save(2)

    model = load_model(str(tmp_path), spans=(0, 3, 2))

    assert model.spans.lengths == (0, 3, 2)
    for a, b in zip(model.weights, trainer.model.weights, strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))
    with pytest.raises(ValueError, match="must name 3 layers"):
        load_model(str(tmp_path), spans=(0, 3))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"spans": (5, 0, 13, 0)},
            r"lacks transformer_xl/block_03/\S+ \(and \d+ more\)",
        ),
        (
            {"spans": (5, 0)},
            r"has model/transformer_xl/block_02/\S+, which is none",
        ),
        (
            {"inner_size": 26},
            r"float32 \[16, 24\], not float32 \[16, 26\] \(and",
        ),
        ({"dtype": "float64"}, r"as float32 \[.*\], not float64"),
    ],
)
def test_another_model_is_one_short_line(
    tmp_path, make_params, make_trainer, make_manager, train, change, reason
):
    """Given a checkpoint, when a run of another model resumes from it, then
    it is refused before anything is overwritten."""
    first = make_trainer(make_params())
    train(first, 1)
    make_manager(first, tmp_path / "run").save(1)
    other = make_trainer(make_params(**change))
    before = [np.array(weight) for weight in other.model.weights]

    with pytest.raises(ValueError, match=reason) as error:
        make_manager(other, tmp_path / "run").restore_or_initialize()

    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    for old, new in zip(before, other.model.weights, strict=True):
        np.testing.assert_array_equal(old, np.array(new))


@pytest.mark.parametrize("suffix", [".index", ".memories-00000-of-00001.index"])
def test_a_damaged_index_names_the_file(
    tmp_path, make_params, make_trainer, make_manager, train, suffix
):
    params = make_params()
    trainer = make_trainer(params)
    train(trainer, 1)
    path = make_manager(trainer, tmp_path / "run").save(1)
    with open(path + suffix, "wb") as stream:
        stream.write(b"no table")

    with pytest.raises(ValueError, match="ckpt-1.* cannot be read"):
        make_manager(
            make_trainer(params), tmp_path / "run"
        ).restore_or_initialize()


@pytest.fixture
def saved(tmp_path, make_params, make_trainer, make_manager, train):
    """A folder with checkpoints of steps 1 to 3, and the losses of 6 steps."""
    params = make_params(dropout=0.2)
    trainer = make_trainer(params)
    manager = make_manager(trainer, tmp_path / "run", max_to_keep=3)
    losses = []
    for step in (1, 2, 3):
        losses += train(trainer, 1)
        manager.save(step)
    return params, tmp_path / "run", losses + train(trainer, 3)


def _truncate(path):
    os.truncate(path, os.path.getsize(path) // 2)


TORN = {
    "data": lambda run: _truncate(run / "ckpt-3.data-00000-of-00001"),
    "index": lambda run: _truncate(run / "ckpt-3.index"),
    "empty index": lambda run: os.truncate(run / "ckpt-3.index", 0),
    "flipped bytes": lambda run: _flip(run / "ckpt-3.data-00000-of-00001"),
    "flipped memories": lambda run: _flip(
        run / "ckpt-3.memories-00000-of-00001.data-00000-of-00001"
    ),
    "no data": lambda run: os.remove(run / "ckpt-3.data-00000-of-00001"),
    "no memories": lambda run: [
        os.remove(path) for path in run.glob("ckpt-3.memories*")
    ],
}


def _flip(path):
    with open(path, "r+b") as stream:
        stream.seek(os.path.getsize(path) // 2)
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 0xFF]))


@pytest.mark.parametrize("damage", TORN)
def test_a_damaged_newest_falls_back_to_the_one_before(
    saved, make_trainer, make_manager, train, caplog, damage
):
    """Given a newest checkpoint that was torn or corrupted, when the run is
    resumed, then it warns, goes on from the one before, bit for bit, and
    saves over the damage."""
    params, run, losses = saved
    TORN[damage](run)
    trainer = make_trainer(params)
    manager = make_manager(trainer, run, max_to_keep=1)

    with caplog.at_level(python_logging.WARNING, "absl"):
        restored = manager.restore_or_initialize()

    assert restored == str(run / "ckpt-2")
    assert any(
        "ckpt-3" in message and "cannot be read" in message
        for message in caplog.messages
    )
    assert train(trainer, 4) == losses[2:]
    assert manager.save(6) == str(run / "ckpt-6")
    assert {name.split(".")[0] for name in os.listdir(run)} == {
        "checkpoint",
        "ckpt-6",
    }


def test_a_lost_state_file_loses_nothing(saved, make_trainer, make_manager):
    """Given a file `checkpoint` that a power cut emptied, when the run is
    resumed, then it goes on from its newest checkpoint."""
    params, run, _ = saved
    os.truncate(run / "checkpoint", 0)
    manager = make_manager(make_trainer(params), run)
    assert manager.restore_or_initialize() == str(run / "ckpt-3")


def test_nothing_readable_never_starts_anew(saved, make_trainer, make_manager):
    params, run, _ = saved
    for path in run.glob("ckpt-*.data*"):
        os.remove(path)
    names = sorted(os.listdir(run))
    with pytest.raises(ValueError, match="no checkpoint of .* can be read"):
        make_manager(make_trainer(params), run).restore_or_initialize()
    assert sorted(os.listdir(run)) == names


@pytest.mark.parametrize("what", ["memories", "variables"])
def test_a_failing_disk_leaves_the_last_good_one(
    saved, make_trainer, make_manager, train, monkeypatch, what
):
    """Given a disk that fills up while a checkpoint is written, when it is,
    then the error names it and the last good one, which still resumes."""
    params, run, losses = saved
    trainer = make_trainer(params)
    manager = make_manager(trainer, run)
    manager.restore_or_initialize()
    train(trainer, 1)
    real = tf.raw_ops.SaveV2 if what == "memories" else trainer.checkpoint.write

    def fail(*args, **kwargs):
        real(*args, **kwargs)
        raise tf.errors.ResourceExhaustedError(
            None, None, "{{function_node x}} ckpt-4; No space left on device"
        )

    with monkeypatch.context() as patch:
        if what == "memories":
            patch.setattr(tf.raw_ops, "SaveV2", fail)
        else:
            patch.setattr(trainer.checkpoint, "write", fail)
        with pytest.raises(ValueError) as error:
            manager.save(4)

    assert str(error.value) == (
        f"checkpoint {run}/ckpt-4 could not be written: ckpt-4; No space left "
        f"on device. The last good one is {run}/ckpt-3."
    )
    assert not list(run.glob("ckpt-4*"))
    again = make_trainer(params)
    assert make_manager(again, run).restore_or_initialize() == str(
        run / "ckpt-3"
    )
    assert train(again, 2) == losses[3:5]


class _Killed(BaseException):
    """What nothing catches."""


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_kill_mixes_no_memories_into_an_old_checkpoint(
    saved, make_trainer, make_manager, train, monkeypatch, num_processes
):
    """Given a checkpoint of which one worker's memories were torn, when the
    run that went on from the one before comes to its step and is killed
    between memories and variables, then nothing takes the old variables for
    those of the new memories."""
    params, run, losses = saved
    _flip(run / "ckpt-3.memories-00000-of-00001.data-00000-of-00001")
    trainer = make_trainer(params)
    manager = make_manager(trainer, run, max_to_keep=3)
    # As the chief of several sees it, whose other workers do nothing.
    workers = mock.Mock(wraps=manager._workers)
    workers.num_processes, workers.is_chief = num_processes, True
    workers.num_hosts, workers.process = 1, 0
    workers.host_devices = manager._workers.host_devices
    monkeypatch.setattr(manager, "_workers", workers)
    assert manager.restore_or_initialize() == str(run / "ckpt-2")
    train(trainer, 1)
    with monkeypatch.context() as patch:
        patch.setattr(
            trainer.checkpoint, "write", mock.Mock(side_effect=_Killed)
        )
        with pytest.raises(_Killed):
            manager.save(3)

    again = make_trainer(params)
    assert make_manager(again, run).restore_or_initialize() == str(
        run / "ckpt-2"
    )
    assert train(again, 2) == losses[2:4]


def test_another_number_of_replicas_deals_the_lanes_anew(
    tmp_path, make_params, make_trainer, make_manager, train, caplog
):
    """Given a checkpoint that says that 3 replicas wrote it, when one resumes,
    then it says so and each lane goes on with its own memory."""
    params = make_params()
    first = make_trainer(params)
    expected = train(first, 2)
    path = make_manager(first, tmp_path / "run").save(2)
    expected = train(first, 2)
    # As three replicas would have written it.
    memories = first_memories(path)
    for file in tmp_path.glob("run/ckpt-2.memories*"):
        os.remove(file)
    write_memories(
        path,
        types.SimpleNamespace(
            process=0,
            num_hosts=1,
            host_devices=["/device:CPU:0"] * 3,
            local_replicas=lambda: range(3),
        ),
        [
            {name: value[lane : lane + 1] for name, value in memories.items()}
            for lane in range(3)
        ],
    )
    rewrite_description(first, path, num_replicas=3)

    second = make_trainer(params)
    with caplog.at_level(python_logging.WARNING, "absl"):
        make_manager(second, tmp_path / "run").restore_or_initialize()

    assert any(
        "the memories of 3 lanes are dealt anew, from 3 replicas to 1" in text
        for text in caplog.messages
    )
    assert train(second, 2) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dropout": 0.3}, "task.model.dropout was 0.0 and is 0.3"),
        ({"same_length": True}, "task.model.same_length was False and is True"),
        ({"clamp_length": 4}, "task.model.clamp_length was None and is 4"),
        ({}, None),
        ({"initializer_stddev": 0.5}, None),
    ],
)
def test_a_model_that_behaves_otherwise_goes_on_and_says_so(
    tmp_path,
    make_params,
    make_trainer,
    make_manager,
    train,
    caplog,
    change,
    message,
):
    """Given a run that is resumed with settings of the model that no variable
    shows, when it is, then it goes on with its memories and names them."""
    first = make_trainer(make_params())
    train(first, 2)
    make_manager(first, tmp_path / "run").save(2)
    second = make_trainer(make_params(**change))

    with caplog.at_level(python_logging.WARNING, "absl"):
        make_manager(second, tmp_path / "run").restore_or_initialize()

    told = [text for text in caplog.messages if "another model" in text]
    assert [text.split(":")[0] for text in told] == ([message] * bool(message))
    assert second.memories is not None


def test_other_hosts_with_as_many_replicas_are_told_of(
    tmp_path, make_params, make_trainer, make_manager, train, caplog
):
    first = make_trainer(make_params())
    train(first, 1)
    make_manager(first, tmp_path / "run").save(1)
    second = make_trainer(make_params())
    second._description.current["memory_files"] = 2  # As if there were two.

    with caplog.at_level(python_logging.WARNING, "absl"):
        make_manager(second, tmp_path / "run").restore_or_initialize()

    assert any(
        "saved by 1 hosts, resumed by 2" in text for text in caplog.messages
    )


def first_memories(path):
    reader = tf.train.load_checkpoint(f"{path}.memories-00000-of-00001")
    return {
        name.split("/")[1]: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
    }


def rewrite_description(trainer, path, **changes):
    """Writes a checkpoint's variables again with another description."""
    trainer.checkpoint.read(path)
    trainer._description.current.update(changes)
    trainer.checkpoint.write(path)
