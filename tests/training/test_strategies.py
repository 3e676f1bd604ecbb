"""Which strategy a config asks for, and what is refused."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
import tensorflow as tf
from official.core import config_definitions as cfg

from official_lrm.training.strategies import build_strategy, check_runtime
from official_lrm.training.workers import Workers


def runtime(**fields):
    return cfg.RuntimeConfig(
        **{"distribution_strategy": "multi_worker_mirrored", **fields}
    )


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "needs runtime.worker_hosts"),
        ({"worker_hosts": "a:1,b:2"}, "task_index must be from 0 to 1.*got -1"),
        ({"worker_hosts": "a:1,b:2", "task_index": 2}, "got 2"),
        ({"worker_hosts": "a:1,b", "task_index": 0}, "host:port.*'a:1,b'"),
        ({"worker_hosts": "a:1,a:1", "task_index": 0}, "different host:port"),
        ({"worker_hosts": "", "task_index": 0}, "needs runtime.worker_hosts"),
    ],
)
def test_hosts_that_cannot_be_meant(fields, message):
    with pytest.raises(ValueError, match=message) as error:
        build_strategy(runtime(**fields))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        json.dumps({"cluster": {"worker": ["a:1"]}}),
        json.dumps(
            {"cluster": {"worker": ["a:1"]}, "task": {"type": "worker"}}
        ).replace('"worker"}', '"worker", "index": 1}'),
        json.dumps(
            {
                "cluster": {"worker": ["a:1"], "ps": ["b:2"]},
                "task": {"type": "worker", "index": 0},
            }
        ),
        json.dumps(
            {
                "cluster": {"worker": ["a:1"]},
                "task": {"type": "chief", "index": 0},
            }
        ),
    ],
)
def test_a_wrong_environment_is_one_line(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="TF_CONFIG must be JSON") as error:
        build_strategy(runtime())
    assert "\n" not in str(error.value)


def test_two_ways_at_once_are_refused(monkeypatch):
    monkeypatch.setenv(
        "TF_CONFIG",
        json.dumps(
            {
                "cluster": {"worker": ["a:1"]},
                "task": {"type": "worker", "index": 0},
            }
        ),
    )
    with pytest.raises(ValueError, match="not both"):
        build_strategy(runtime(worker_hosts="a:1", task_index=0))


@pytest.mark.parametrize(
    "fields",
    [
        {"distribution_strategy": "one_device", "num_gpus": -1},
        {"distribution_strategy": "one_device", "num_gpus": 99},
        {"distribution_strategy": "mirrored", "num_gpus": 99},
    ],
)
def test_devices_that_are_not_there(fields):
    with pytest.raises(ValueError, match="runtime.num_gpus must be") as error:
        build_strategy(runtime(**fields))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "error",
    [
        OSError("<urlopen error [Errno -2] Name or service not known>"),
        tf.errors.UnavailableError(None, None, "failed to\nconnect"),
    ],
)
def test_a_tpu_that_is_not_there_is_named(monkeypatch, error):
    def fail(**_):
        raise error

    monkeypatch.setattr(
        "official.common.distribute_utils.get_distribution_strategy", fail
    )
    with pytest.raises(ValueError, match="'nosuch' .--tpu. cannot") as told:
        build_strategy(runtime(distribution_strategy="tpu", tpu="nosuch"))
    assert "\n" not in str(told.value)
    with pytest.raises(type(error)):
        build_strategy(runtime(distribution_strategy="mirrored"))


def test_other_workers_are_not_waited_for_to_check():
    check_runtime(runtime(worker_hosts="a:1,b:2", task_index=0))
    assert "TF_CONFIG" not in os.environ


_WORKER = """
import sys, time
from official.core import config_definitions as cfg
from official_lrm.training.strategies import build_strategy
build_strategy(cfg.RuntimeConfig(
    distribution_strategy="multi_worker_mirrored",
    worker_hosts=sys.argv[1],
    task_index=0,
))
print("built", flush=True)
time.sleep(600)
"""


def test_sigterm_ends_a_worker_that_does_not_train_yet():
    """Given a worker that reads its text, or evaluates, when it is preempted,
    then it ends: TensorFlow's own handler would have it go on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER, host], stdout=subprocess.PIPE
    )
    try:
        assert worker.stdout.readline() == b"built\n"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == -signal.SIGTERM
    finally:
        worker.kill()
        worker.communicate()


@pytest.mark.parametrize(
    "strategy",
    [
        tf.distribute.get_strategy,
        lambda: tf.distribute.OneDeviceStrategy("CPU:0"),
        lambda: tf.distribute.MirroredStrategy(["CPU:0"]),
    ],
)
def test_one_process_is_its_own_chief(strategy):
    workers = Workers(strategy())
    assert workers.is_chief
    assert (workers.num_processes, workers.num_hosts) == (1, 1)
    assert list(workers.local_replicas()) == [0]
    assert workers.sum(7) == workers.of_chief(7) == 7
    (device,) = workers.host_devices
    assert device.endswith("device:CPU:0")
