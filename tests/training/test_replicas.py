"""Replicas and workers train as one device does.

The script runs on its own, because logical devices and collectives can only
be set up before TensorFlow has started.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys

import pytest

_SCRIPT = r"""
import json, os, sys
import tensorflow as tf

dtype, num_replicas, steps, text = (
    sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
)
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(num_replicas)]
)
if "TF_CONFIG" in os.environ:
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
else:
    strategy = tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(num_replicas)]
    )
import keras
from official.core import task_factory
from official_lrm.configs import resolve
from official_lrm.training import parse_params
from official_lrm.training.experiment import build_trainer

params = parse_params(
    "lrm_quickstart",
    params_override=json.dumps({
        "task": {
            "model": {
                "num_layers": 3, "hidden_size": 16, "num_heads": 2,
                "head_size": 8, "inner_size": 24,
                "spans": {"lengths": [5, 0, 13]},
            },
            "corpus": {"name": "text", "input_path": text},
            "train_data": {"global_batch_size": 4, "segment_length": 7},
            "validation_data": {"global_batch_size": 4, "segment_length": 7},
        },
        "trainer": {
            "train_steps": steps,
            "optimizer_config": {
                "learning_rate": {
                    "cosine": {"initial_learning_rate": 0.01, "offset": 2},
                },
                "warmup": {"linear": {"warmup_steps": 2}},
            },
        },
        "runtime": {"mixed_precision_dtype": dtype},
    }),
)
settings = resolve(params)
keras.config.set_dtype_policy(settings.dtype_policy)
with strategy.scope():
    keras.utils.set_random_seed(1)
    task = task_factory.get_task(params.task)
    trainer = build_trainer(params, settings, task)
losses = [
    trainer.train(tf.constant(1))["training_loss"] for _ in range(steps)
]
memories = strategy.experimental_local_results(trainer.memories["memory_02"])
positions = [
    p for r in strategy.experimental_local_results(trainer.memories["position"])
    for p in r.numpy().tolist()
]
print(json.dumps({
    "losses": losses,
    "memory": [float(tf.reduce_sum(m)) for m in memories],
    "positions": positions,
    "seeds": [
        s.numpy().tolist() for s in strategy.experimental_local_results(
            strategy.run(tf.function(trainer._dropout_seed))
        )
    ],
    "evaluation": trainer.evaluate(tf.constant(-1))["validation_loss"],
}))
"""


def _start(tmp_path, dtype, num_replicas, steps, environment=None):
    text = tmp_path / "text.txt"
    text.write_bytes(bytes(i * i * 31 % 251 for i in range(4000)))
    return subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, dtype, str(num_replicas), str(steps)]
        + [str(text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )


def _finish(process):
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


def _run(*args):
    return _finish(_start(*args))


def _run_workers(tmp_path, dtype, steps, num_workers=2):
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            for _ in range(num_workers)
        ]
        ports = [socket.getsockname()[1] for socket in sockets]
    hosts = [f"127.0.0.1:{port}" for port in ports]
    processes = [
        _start(
            tmp_path,
            dtype,
            1,
            steps,
            {
                "TF_CONFIG": json.dumps(
                    {
                        "cluster": {"worker": hosts},
                        "task": {"type": "worker", "index": index},
                    }
                )
            },
        )
        for index in range(num_workers)
    ]
    return [_finish(process) for process in processes]


@pytest.mark.parametrize(
    ("dtype", "steps", "tolerance"),
    [
        ("float32", 20, 1e-5),
        pytest.param("float64", 200, 1e-9, marks=pytest.mark.slow),
    ],
)
def test_any_number_of_replicas_trains_as_one_does(
    tmp_path, dtype, steps, tolerance
):
    """Given one global batch, when 1, 2 or 4 devices of a process or those of
    2 processes train, dropout off, then the losses are the same."""
    one = _run(tmp_path, dtype, 1, steps)
    assert one["losses"][0] - one["losses"][-1] > 0.1, "it must train"
    others = {
        "2 devices": [_run(tmp_path, dtype, 2, steps)],
        "4 devices": [_run(tmp_path, dtype, 4, steps)],
        "2 processes": _run_workers(tmp_path, dtype, steps),
    }
    for name, results in others.items():
        for result in results:
            largest = max(
                abs(a - b)
                for a, b in zip(one["losses"], result["losses"], strict=True)
            )
            print(f"{dtype}, {name}: {largest:.2e} over {steps} steps")
            assert largest < tolerance
            assert one["evaluation"] == pytest.approx(
                result["evaluation"], abs=tolerance
            )
        # Replicas draw dropout from seeds of their own.
        seeds = [seed for result in results for seed in result["seeds"]]
        assert seeds[0] == one["seeds"][0]
        assert len({tuple(seed) for seed in seeds}) == len(seeds)
        # They hold the lanes in their order.
        assert one["positions"] == sum((r["positions"] for r in results), [])
        assert sum(one["memory"]) == pytest.approx(
            sum(sum(result["memory"]) for result in results),
            abs=1e3 * tolerance,
        )
