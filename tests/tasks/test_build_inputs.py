"""The lanes of each host: read in Python, from shards, through a service."""

import itertools
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.configs import LanguageModelingConfig, resolve
from official_lrm.tasks.language_modeling import LanguageModelingTask
from official_lrm.training import parse_params


@pytest.fixture
def make_task(tmp_path):
    """Returns make(shard_dir, address); 8 lanes of 7 tokens."""

    def make(shard_dir="", address=""):
        path = tmp_path / "text.txt"
        path.write_bytes(bytes(range(256)) * 9)
        lanes = {
            "global_batch_size": 8,
            "segment_length": 7,
            "tf_data_service_address": address,
        }
        return LanguageModelingTask(
            LanguageModelingConfig(
                corpus={
                    "name": "text",
                    "input_path": str(path),
                    "shard_dir": str(shard_dir),
                },
                train_data={"split": "train", **lanes},
                validation_data={
                    "split": "validation",
                    "max_tokens": 90,
                    **lanes,
                },
            )
        )

    return make


def shards_in(folder):
    return sorted(path.name for path in pathlib.Path(folder).glob("*/*"))


def elements(dataset, count=None):
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


@pytest.mark.parametrize("num_hosts", [1, 2, 4])
@pytest.mark.parametrize("use_shards", [False, True])
@pytest.mark.parametrize("field", ["train_data", "validation_data"])
def test_hosts_together_have_the_lanes_of_one(
    make_task, tmp_path, num_hosts, use_shards, field
):
    # Given hosts of two replicas each,
    task = make_task(tmp_path / "shards" if use_shards else "")
    params = getattr(task.task_config, field)
    training = field == "train_data"
    start = 5 if training else 0
    lanes = task.training_lanes() if training else task.evaluation_lanes()
    steps = 300 if training else lanes.num_steps
    # when each makes its own dataset, as a strategy has it do,
    hosts = [
        elements(
            task.build_inputs(
                params,
                tf.distribute.InputContext(num_hosts, host, 2 * num_hosts),
                start_step=start,
            ),
            2 * steps,
        )
        for host in range(num_hosts)
    ]
    # then the replicas of all of them, in their order, have the whole batch.
    for step in range(steps):
        replicas = [
            host[2 * step + replica] for host in hosts for replica in range(2)
        ]
        for name, expected in lanes.batch(start + step).items():
            rows = np.concatenate([replica[name] for replica in replicas])
            np.testing.assert_array_equal(rows, expected)
    assert bool(shards_in(tmp_path / "shards")) == use_shards


def test_hosts_write_the_shards_once(make_task, tmp_path):
    folder = tmp_path / "shards"
    first, second = make_task(folder), make_task(folder)
    shards = first.token_shards("train")
    written = shards_in(folder)
    assert written and second.token_shards("train") == shards
    assert shards_in(folder) == written
    assert make_task().token_shards("train") is None


def test_through_a_service(make_task, tmp_path):
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer(service.DispatcherConfig(port=0))
    worker = service.WorkerServer(
        service.WorkerConfig(
            dispatcher_address=dispatcher.target.removeprefix("grpc://")
        )
    )
    task = make_task(tmp_path, dispatcher.target)
    lanes = task.training_lanes()
    for start in (0, 1000):
        dataset = task.build_inputs(
            task.task_config.train_data, start_step=start
        )
        for step, batch in enumerate(elements(dataset, 50), start):
            for name, expected in lanes.batch(step).items():
                np.testing.assert_array_equal(batch[name], expected)
    dataset = task.build_inputs(task.task_config.validation_data)
    assert len(elements(dataset)) == task.evaluation_lanes().num_steps
    del worker, dispatcher  # Until here they serve.


@pytest.mark.parametrize("field", ["train_data", "validation_data"])
@pytest.mark.parametrize(
    ("value", "shard_dir", "message"),
    [
        ("localhost:5000", "shards", "must be grpc://host:port, got 'localhos"),
        ("grpc://[::1]:0", "shards", "must be grpc://host:port, got 'grpc"),
        ("grpc://host:5000", "", "needs task.corpus.shard_dir, .*; got none"),
        (5, "shards", "must be a string; got 5"),
    ],
)
def test_a_wrong_address_is_refused(field, value, shard_dir, message):
    params = parse_params("lrm_quickstart")
    params.task.corpus.shard_dir = shard_dir
    getattr(params.task, field).tf_data_service_address = value
    name = f"task.{field}.tf_data_service_address"
    with pytest.raises(ValueError, match=f"^{name}.*{message}"):
        resolve(params)


def test_the_service_is_no_part_of_what_decides_the_numbers():
    params = parse_params("lrm_quickstart")
    before = resolve(params)
    params.task.corpus.shard_dir = "shards"
    params.task.train_data.tf_data_service_address = "grpc://[::1]:5000"
    assert resolve(params) == before
