"""Checkpoints hold everything; a resumed run is the run."""

import logging as python_logging
import os

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.training import load_model
from official_lrm.training.checkpointing import read_memories
from official_lrm.training.params import write_params


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
    assert set(saved) == {*expected, "global_step", "save_counter"}
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

    (memories,) = read_memories(path, 1)

    assert memories["memory_00"].dtype == tf.bfloat16.as_numpy_dtype
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
