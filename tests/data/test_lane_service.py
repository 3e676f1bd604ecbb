"""Tests of lanes read by the worker of a tf.data service."""

import itertools
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.data import (
    EvaluationLanes,
    TrainingLanes,
    read_through_service,
    write_shards,
)

# A process without this package: what runs there is the graph alone.
_WORKER = """
import sys
import tensorflow as tf
service = tf.data.experimental.service
worker = service.WorkerServer(
    service.WorkerConfig(
        dispatcher_address=sys.argv[1],
        port=int(sys.argv[2]),
        heartbeat_interval_ms=100,
    )
)
print("up", flush=True)
worker.join()
"""

TOKENS = np.random.default_rng(0).integers(0, 251, 997)
LANES = TrainingLanes(TOKENS, 6, 7, [0, 5, 300])


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Service:
    """A dispatcher in this process and workers in others."""

    def __init__(self, folder):
        service = tf.data.experimental.service
        self._dispatcher = service.DispatchServer(
            service.DispatcherConfig(port=0, worker_timeout_ms=1000)
        )
        self.address = self._dispatcher.target
        self._folder = folder
        self._port = free_port()
        self._workers = []

    def start_worker(self, port=0):
        bare = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        worker = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _WORKER,
                self.address.removeprefix("grpc://"),
                str(port or self._port),
            ],
            stdout=subprocess.PIPE,
            text=True,
            cwd=self._folder,
            env=bare,
        )
        self._workers.append(worker)
        assert worker.stdout.readline() == "up\n"

    def stop_workers(self):
        for worker in self._workers:
            worker.kill()
            worker.communicate()
        self._workers = []


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path)
    service.start_worker()
    yield service
    service.stop_workers()


@pytest.fixture
def shards(tmp_path):
    return write_shards(TOKENS, str(tmp_path), "text", 64)


def check(batches, lanes, start, first_lane=0, rows=None, replicas=1):
    for index, batch in enumerate(batches):
        step, replica = start + index // replicas, index % replicas
        first = first_lane + replica * (rows or 0)
        expected = lanes.batch(step, first, rows)
        assert batch.keys() == expected.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], expected[name], name)


def test_lanes_come_once_and_in_order(service, shards):
    # Given two hosts of two replicas each, and an evaluation beside them,
    datasets = [
        read_through_service(
            LANES.dataset(11, host * 2, 2, 2, shards), service.address, 11, 2
        )
        for host in range(2)
    ]
    evaluation = EvaluationLanes(TOKENS, 3, 5)
    scored = read_through_service(
        evaluation.dataset(shards=shards), service.address
    )
    assert datasets[0].cardinality() == tf.data.INFINITE_CARDINALITY
    assert datasets[0].element_spec == LANES.dataset(0, 0, 2, 2).element_spec
    assert scored.cardinality() == evaluation.num_steps
    # then each gets its own lanes, whatever the others read,
    iterators = [iter(dataset) for dataset in datasets]
    check(itertools.islice(iterators[0], 200), LANES, 11, 0, 1, 2)
    check(scored, evaluation, 0)
    check(itertools.islice(iterators[1], 300), LANES, 11, 2, 1, 2)
    # and again from the beginning when it is read again.
    check(scored, evaluation, 0)
    check(datasets[1].take(50), LANES, 11, 2, 1, 2)


def test_a_run_that_goes_on_gets_no_stale_elements(service, shards):
    for start in (0, 40):
        dataset = LANES.dataset(start, shards=shards)
        dataset = read_through_service(dataset, service.address, start)
        check(dataset.take(50), LANES, start)


def test_two_workers_are_found_out(service, shards):
    service.start_worker(free_port())
    dataset = read_through_service(
        LANES.dataset(5, num_replicas=2, shards=shards), service.address, 5, 2
    )
    message = (
        r"delivered step \d+ of replica [01] where step \d+ of replica [01] is "
        "due.* exactly one worker"
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        check(dataset, LANES, 5, 0, 3, 2)


def test_a_worker_that_begins_anew_is_found_out(service, shards):
    dataset = read_through_service(
        LANES.dataset(5, shards=shards), service.address, 5
    )
    batches = iter(dataset)
    check(itertools.islice(batches, 100), LANES, 5)
    service.stop_workers()
    service.start_worker()
    message = r"delivered step 5 where step 1\d\d is due"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        check(batches, LANES, 105)


def test_a_shard_that_the_worker_does_not_see(service, shards):
    os.remove(shards.file_name(3))
    dataset = read_through_service(
        LANES.dataset(shards=shards), service.address
    )
    with pytest.raises(tf.errors.NotFoundError, match="tokens-00003-of"):
        next(iter(dataset))


def test_a_dispatcher_that_is_not_there(shards):
    address = f"grpc://127.0.0.1:{free_port()}"
    message = f"^no dispatcher of a tf.data service answers at {address}: "
    with pytest.raises(OSError, match=message):
        read_through_service(LANES.dataset(shards=shards), address)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost:50",
        "grpc://",
        "grpc://host",
        "grpc://h:0",
        "grpc://h:99999",
    ],
)
def test_an_address_that_is_none(shards, address):
    message = f"must be grpc://host:port, got '{address}'$"
    with pytest.raises(ValueError, match=message):
        read_through_service(LANES.dataset(shards=shards), address)
