"""Memories on disk: one file for each host, lanes dealt anew."""

import os
import types

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.memory.state import MemorySpec
from official_lrm.training.checkpoint_contents import (
    UnreadableCheckpointError,
)
from official_lrm.training.memory_files import read_memories, write_memories

LANES = 12
FULL = {
    "memory_01": np.random.default_rng(0).normal(size=(LANES, 5, 3)),
    "position": np.arange(LANES, dtype=np.int32) * 7,
}


def workers_of(num_processes, replicas_of_process):
    """What read_memories and write_memories ask of Workers."""
    return [
        types.SimpleNamespace(
            process=process,
            num_hosts=num_processes,
            host_devices=["/device:CPU:0"] * replicas_of_process,
            local_replicas=lambda process=process: range(
                process * replicas_of_process,
                (process + 1) * replicas_of_process,
            ),
        )
        for process in range(num_processes)
    ]


def specs(num_replicas):
    lanes = LANES // num_replicas
    return {
        "memory_01": MemorySpec((lanes, 5, 3), "float64"),
        "position": MemorySpec((lanes,), "int32"),
    }


def write(prefix, num_processes, replicas_of_process):
    replicas = num_processes * replicas_of_process
    lanes = LANES // replicas
    for workers in workers_of(num_processes, replicas_of_process):
        write_memories(
            prefix,
            workers,
            [
                {
                    name: tf.constant(value[r * lanes : (r + 1) * lanes])
                    for name, value in FULL.items()
                }
                for r in workers.local_replicas()
            ],
        )
    return {
        "num_lanes": LANES,
        "num_replicas": replicas,
        "memory_files": num_processes,
    }


@pytest.mark.parametrize("now", [(1, 1), (1, 4), (2, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("before", [(1, 1), (1, 3), (2, 2), (4, 1)])
def test_every_lane_goes_on_with_its_own(tmp_path, before, now):
    """Given memories of some hosts and replicas, when others read them, then
    lane b gets the memory of lane b."""
    prefix = str(tmp_path / "ckpt-3")
    layout = write(prefix, *before)

    read = []
    for workers in workers_of(*now):
        read += read_memories(prefix, layout, workers, specs(now[0] * now[1]))

    assert len(read) == now[0] * now[1]
    for name, value in FULL.items():
        np.testing.assert_array_equal(
            np.concatenate([replica[name] for replica in read]), value
        )


def test_a_host_writes_its_own_file_only(tmp_path):
    prefix = str(tmp_path / "ckpt-3")
    write(prefix, 3, 2)
    for host in range(3):
        reader = tf.train.load_checkpoint(
            f"{prefix}.memories-{host:05d}-of-00003"
        )
        assert set(reader.get_variable_to_shape_map()) == {
            f"replica_{2 * host + i:02d}/{name}"
            for i in (0, 1)
            for name in FULL
        }


def test_a_host_reads_its_own_file_only(tmp_path):
    """Given the same hosts as wrote, when one reads, then it opens no other's
    file."""
    prefix = str(tmp_path / "ckpt-3")
    layout = write(prefix, 2, 2)
    for name in os.listdir(tmp_path):
        if "memories-00000" in name:
            os.remove(tmp_path / name)

    second = workers_of(2, 2)[1]
    read = read_memories(prefix, layout, second, specs(4))

    np.testing.assert_array_equal(
        np.concatenate([replica["position"] for replica in read]),
        FULL["position"][6:],
    )
    first = workers_of(2, 2)[0]
    with pytest.raises(UnreadableCheckpointError, match="memories-00000-of"):
        read_memories(prefix, layout, first, specs(4))


def test_memories_of_another_shape_are_unreadable(tmp_path):
    prefix = str(tmp_path / "ckpt-3")
    layout = write(prefix, 1, 1)
    (workers,) = workers_of(1, 1)
    other = {**specs(1), "memory_01": MemorySpec((LANES, 6, 3), "float64")}
    with pytest.raises(UnreadableCheckpointError, match="cannot be read"):
        read_memories(prefix, layout, workers, other)


def test_each_host_writes_on_its_own_machine(tmp_path):
    """Given replicas on two servers, when memories are written, then each
    server's are in a file that it wrote itself."""
    servers = [tf.distribute.Server.create_local_server() for _ in range(2)]
    hosts = [server.target.removeprefix("grpc://") for server in servers]
    tf.config.experimental_connect_to_cluster(
        tf.train.ClusterSpec({"host": hosts}), protocol="grpc"
    )
    devices = [f"/job:host/replica:0/task:{i}/device:CPU:0" for i in (0, 1)]
    replicas = []
    for device in devices:
        with tf.device(device):
            replicas.append({"position": tf.constant([1, 2]) * 3})
    workers = types.SimpleNamespace(
        process=0,
        num_hosts=2,
        host_devices=devices,
        local_replicas=lambda: range(2),
    )
    prefix = str(tmp_path / "ckpt-3")

    write_memories(prefix, workers, replicas)
    layout = {"num_lanes": 4, "num_replicas": 2, "memory_files": 2}
    read = read_memories(
        prefix, layout, workers, {"position": MemorySpec((2,), "int32")}
    )

    for device, memories in zip(devices, read, strict=True):
        assert memories["position"].backing_device == device
        np.testing.assert_array_equal(memories["position"], [3, 6])
    assert len(list(tmp_path.glob("*.index"))) == 2
