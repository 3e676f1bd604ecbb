"""Tests that lanes read by a graph are those read in Python."""

import itertools
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.data import EvaluationLanes, TrainingLanes, write_shards

# A process without this package: what runs there is the graph alone.
_REMOTE_HOST = """
import sys
import tensorflow as tf
server = tf.distribute.Server(
    {"worker": [sys.argv[1]]}, job_name="worker", task_index=0
)
print("up", flush=True)
server.join()
"""

# In a process of its own, as a cluster is for good.
_COORDINATOR = """
import sys
import numpy as np
import tensorflow as tf
from official_lrm.data import TrainingLanes, write_shards

cluster = tf.train.ClusterSpec({"worker": [sys.argv[1]]})
tf.config.experimental_connect_to_cluster(cluster)
tokens = np.random.default_rng(0).integers(0, 251, 997)
lanes = TrainingLanes(tokens, 6, 7, [0, 5, 300])
shards = write_shards(tokens, sys.argv[2], "text", 64)
with tf.device("/job:worker/task:0"):
    try:
        lanes.dataset()
    except ValueError as error:
        print(error)
    dataset = lanes.dataset(3, 2, 4, num_replicas=2, shards=shards)
    for index, batch in enumerate(dataset.take(300)):
        assert "job:worker" in batch["tokens"].device
        part = lanes.batch(3 + index // 2, 2 + 2 * (index % 2), 2)
        for name, expected in part.items():
            np.testing.assert_array_equal(batch[name], expected)
print("agreed")
"""


def random_tokens(size, most=251, seed=0):
    return np.random.default_rng(seed).integers(0, most, size)


def elements(dataset, count=None):
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def assert_same(dataset, other, count=None):
    assert dataset.element_spec == other.element_spec
    assert dataset.cardinality() == other.cardinality()
    ours, theirs = elements(dataset, count), elements(other, count)
    assert len(ours) == len(theirs)
    for batch, expected in zip(ours, theirs, strict=True):
        assert batch.keys() == expected.keys()
        for name in batch:
            assert batch[name].dtype == expected[name].dtype, name
            np.testing.assert_array_equal(batch[name], expected[name], name)


@pytest.fixture
def shards_of(tmp_path):
    return lambda tokens, size=32: write_shards(
        tokens, str(tmp_path), "text", size
    )


@pytest.fixture
def step_by_step(monkeypatch):
    name = "official_lrm.data.lane_datasets._TOKENS_AT_ONCE"
    monkeypatch.setattr(name, 1)


@pytest.fixture(params=[2**20, 50])
def tokens_at_once(request, monkeypatch):
    name = "official_lrm.data.lane_datasets._TOKENS_AT_ONCE"
    monkeypatch.setattr(name, request.param)


@pytest.mark.usefixtures("tokens_at_once")
class TestEqualToPython:
    @pytest.mark.parametrize("starts", [None, (0, 1, 5, 30, 33, 96)])
    @pytest.mark.parametrize("start", [0, 1, 29, 7 * 10**12 + 1])
    def test_training(self, shards_of, starts, start):
        tokens = random_tokens(97)
        lanes = TrainingLanes(tokens, 5, 3, starts)
        # More than once round the text.
        assert_same(
            lanes.dataset(start, shards=shards_of(tokens)),
            lanes.dataset(start),
            2 * lanes.segments_per_pass + 3,
        )

    @pytest.mark.parametrize("starts", [None, (0, 1, 5, 30, 33, 96)])
    @pytest.mark.parametrize("num_lanes", [1, 4, 60])
    def test_evaluation(self, shards_of, starts, num_lanes):
        tokens = random_tokens(97)
        lanes = EvaluationLanes(tokens, num_lanes, 3, starts)
        assert_same(lanes.dataset(shards=shards_of(tokens)), lanes.dataset())

    @pytest.mark.parametrize("most", [200, 60_000, 2**31 - 1])
    def test_types_of_tokens(self, shards_of, most):
        tokens = random_tokens(211, most)
        shards = shards_of(tokens)
        lanes = TrainingLanes(tokens, 3, 7)
        assert_same(lanes.dataset(shards=shards), lanes.dataset(), 80)

    @pytest.mark.parametrize("kind", [TrainingLanes, EvaluationLanes])
    def test_slices_of_lanes_and_replicas(self, shards_of, kind):
        tokens = random_tokens(211)
        lanes = kind(tokens, 7, 5, [0, 50])
        for arguments in (
            {"first_lane": 1, "num_lanes": 6, "num_replicas": 3},
            {"first_lane": 3},
            {"num_lanes": 1},
        ):
            assert_same(
                lanes.dataset(**arguments, shards=shards_of(tokens)),
                lanes.dataset(**arguments),
                60,
            )

    def test_the_beginning_of_a_text(self, shards_of):
        tokens = random_tokens(211)
        lanes = TrainingLanes(tokens[:97], 3, 7)
        shards = shards_of(tokens)
        assert_same(lanes.dataset(shards=shards), lanes.dataset(), 40)


def test_shards_of_less_text_are_refused(shards_of):
    lanes = TrainingLanes(random_tokens(97), 3, 7)
    message = "shards must hold the 97 tokens of the lanes, got 90"
    with pytest.raises(ValueError, match=message):
        lanes.dataset(shards=shards_of(random_tokens(90)))


def test_the_graph_needs_no_python_and_holds_no_text(shards_of):
    tokens = random_tokens(300_007)
    lanes = TrainingLanes(tokens, 2, 3)
    dataset = lanes.dataset(shards=shards_of(tokens, 2**18))
    graph = tf.raw_ops.DatasetToGraphV2(input_dataset=dataset._variant_tensor)
    graph = tf.compat.v1.GraphDef.FromString(graph.numpy())
    nodes = [*graph.node]
    for function in graph.library.function:
        nodes.extend(function.node_def)
    operations = {node.op for node in nodes}
    assert "ReadFile" in operations
    assert not {name for name in operations if "PyFunc" in name}
    assert graph.ByteSize() < 50_000


@pytest.mark.usefixtures("step_by_step")
def test_resuming_far_on_reads_nothing_before(shards_of):
    tokens = random_tokens(10_007)
    shards = shards_of(tokens)
    lanes = TrainingLanes(tokens, 1, 7)
    step = 1000
    for shard in range(step * 7 // 32):
        os.remove(shards.file_name(shard))
    (batch,) = elements(lanes.dataset(step, shards=shards), 1)
    np.testing.assert_array_equal(batch["tokens"], lanes.batch(step)["tokens"])


@pytest.mark.usefixtures("step_by_step")
class TestHosts:
    @pytest.mark.parametrize("num_hosts", [2, 4])
    @pytest.mark.parametrize("kind", [TrainingLanes, EvaluationLanes])
    def test_no_host_needs_the_shards_of_another(
        self, tmp_path, kind, num_hosts
    ):
        # Given lanes of 10 segments of 8 tokens each, and shards of 16 tokens,
        tokens = random_tokens(640 + 1)
        lanes = kind(tokens, 8, 8)
        steps, per_host = 10, 8 // num_hosts
        parts, read = [], []
        for host in range(num_hosts):
            first = host * per_host
            # when a host finds only the shards of its own lanes (the last
            # one of which begins with the target of its last token),
            shards = write_shards(tokens, str(tmp_path / f"{host}"), "text", 16)
            own = range(first * 5, (first + per_host) * 5 + 1)
            for shard in set(range(41)) - set(own):
                os.remove(shards.file_name(shard))
            read.append(set(own))
            arguments = {"first_lane": first, "num_lanes": per_host}
            # then a pass over the text reads them,
            dataset = lanes.dataset(**arguments, shards=shards)
            parts.append(elements(dataset, steps))
        # and all hosts' lanes together are those of one host.
        for step in range(steps):
            whole = lanes.batch(step)
            for name, expected in whole.items():
                rows = np.concatenate([part[step][name] for part in parts])
                np.testing.assert_array_equal(rows, expected)
        for host, other in itertools.pairwise(read):
            assert len(host & other) == 1


def test_a_remote_host_runs_the_graph(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    bare = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    host = subprocess.Popen(
        [sys.executable, "-c", _REMOTE_HOST, address],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=bare,
    )
    try:
        assert host.stdout.readline() == "up\n"
        done = subprocess.run(
            [sys.executable, "-c", _COORDINATOR, address, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=300,
        )
    finally:
        host.kill()
        host.communicate()
    assert done.returncode == 0, done.stderr[-3000:]
    refused, agreed = done.stdout.splitlines()
    assert refused == (
        "the lanes of job:worker/task:0 must be read from shards, which "
        "task.corpus.shard_dir is for: Python runs on job:localhost/task:0 "
        "only"
    )
    assert agreed == "agreed"
