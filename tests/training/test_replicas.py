"""One replica and two give the same losses: the script runs on its own,

because logical devices can only be made before TensorFlow has started.
"""

import json
import subprocess
import sys

import pytest

_SCRIPT = r"""
import json, sys
import tensorflow as tf

dtype, num_replicas, steps, text = (
    sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
)
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(2)]
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
            "validation_data": {"global_batch_size": 2, "segment_length": 7},
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
devices = [f"CPU:{i}" for i in range(num_replicas)]
strategy = tf.distribute.MirroredStrategy(devices)
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


def _run(tmp_path, dtype, num_replicas, steps):
    text = tmp_path / "text.txt"
    text.write_bytes(bytes(i * i * 31 % 251 for i in range(4000)))
    output = subprocess.run(
        [sys.executable, "-c", _SCRIPT, dtype, str(num_replicas), str(steps)]
        + [str(text)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return json.loads(output.splitlines()[-1])


@pytest.mark.parametrize(
    ("dtype", "steps", "tolerance"),
    [
        ("float32", 20, 1e-5),
        pytest.param("float64", 200, 1e-9, marks=pytest.mark.slow),
    ],
)
def test_two_replicas_train_as_one_does(tmp_path, dtype, steps, tolerance):
    """Given one global batch, when one or two replicas train, dropout off."""
    one = _run(tmp_path, dtype, 1, steps)
    two = _run(tmp_path, dtype, 2, steps)

    largest = max(
        abs(a - b) for a, b in zip(one["losses"], two["losses"], strict=True)
    )
    print(f"{dtype}: largest difference over {steps} steps {largest:.2e}")
    print(f"losses {one['losses'][0]:.4f} -> {one['losses'][-1]:.4f}")
    assert largest < tolerance
    assert one["losses"][0] - one["losses"][-1] > 0.1, "it must train"
    assert one["seeds"][0] == two["seeds"][0] != two["seeds"][1], (
        "replicas draw dropout from seeds of their own"
    )
    assert one["positions"] == two["positions"]
    assert sum(one["memory"]) == pytest.approx(
        sum(two["memory"]), abs=1e3 * tolerance
    )
    assert one["evaluation"] == pytest.approx(two["evaluation"], abs=tolerance)
