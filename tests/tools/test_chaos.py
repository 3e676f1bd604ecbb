"""The script that kills runs, and how it compares what they leave."""

import os
import shutil

import pytest
import tensorflow as tf

from official_lrm.training.checkpoint_files import checkpoint_steps
from tools.run_comparison import compare_runs


@pytest.mark.slow
def test_killed_runs_end_as_one_that_was_left_alone(run_tool, tmp_path):
    """A short form of `make chaos`."""
    result = run_tool(
        "tools/chaos.py",
        "--kills=3",
        "--steps=40",
        f"--folder={tmp_path}",
    )
    print(result.stdout)
    assert result.status == 0, result.stderr
    assert result.stdout.count("kill ") == 3
    assert "bit for bit the same: " in result.stdout.splitlines()[-1]


@pytest.fixture
def copies(trained, tmp_path):
    """Two copies of a run, and its last step."""
    paths = [tmp_path / name for name in ("first", "second")]
    for path in paths:
        shutil.copytree(trained.path, path)
    return [*map(str, paths), checkpoint_steps(paths[0])[-1]]


class TestComparison:
    def test_copies_are_the_same(self, copies):
        line = compare_runs(*copies)
        assert line.startswith("bit for bit the same: ")
        assert ", 4 memories, best.json, " in line

    def test_one_bit_of_a_weight_is_found(self, copies):
        first, second, step = copies
        self.change(
            f"{second}/ckpt-{step}",
            "model/transformer_xl.Scontent_bias/.ATTRIBUTES/VARIABLE_VALUE",
        )
        with pytest.raises(ValueError, match="content_bias.* is not that of"):
            compare_runs(first, second, step)

    def test_one_position_of_a_memory_is_found(self, copies):
        first, second, step = copies
        self.change(
            f"{second}/ckpt-{step}.memories-00000-of-00001",
            "replica_00/position",
        )
        with pytest.raises(ValueError, match="replica_00/position"):
            compare_runs(first, second, step)

    def change(self, prefix, wanted):
        reader = tf.train.load_checkpoint(prefix)
        tensors = {
            name: reader.get_tensor(name)
            for name in reader.get_variable_to_shape_map()
        }
        tensors[wanted].flat[0] += 1
        tf.raw_ops.SaveV2(
            prefix=prefix,
            tensor_names=list(tensors),
            shape_and_slices=[""] * len(tensors),
            tensors=list(tensors.values()),
        )

    def test_another_loss_on_the_way_is_found(self, copies):
        first, second, step = copies
        with tf.summary.create_file_writer(f"{second}/train").as_default():
            tf.summary.scalar("training_loss", 7.0, step=2)
        with pytest.raises(ValueError, match="training_loss of step 2 was"):
            compare_runs(first, second, step)

    def test_another_best_evaluation_is_found(self, copies):
        first, second, step = copies
        with open(f"{second}/best/best.json", "a") as stream:
            stream.write("\n")
        with pytest.raises(ValueError, match="best.json was"):
            compare_runs(first, second, step)

    def test_a_missing_checkpoint_is_found(self, copies):
        first, second, step = copies
        os.remove(f"{second}/ckpt-{step}.index")
        with pytest.raises(ValueError, match="holds no checkpoint of step"):
            compare_runs(first, second, step)
