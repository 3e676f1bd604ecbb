"""Tests of `data` that need a process of their own."""

import os
import pathlib
import subprocess
import sys

import official_lrm.data

# Devices can be divided only before TensorFlow has started, so this needs a
# process of its own.
_TWO_REPLICAS = """
import numpy as np
import tensorflow as tf
from official_lrm.data import EvaluationLanes, TrainingLanes

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
tokens = np.random.default_rng(0).integers(0, 251, 997)

def check(lanes, make_dataset, first_step, steps):
    dataset = strategy.distribute_datasets_from_function(make_dataset)
    iterator = iter(dataset)
    for step in range(first_step, first_step + steps):
        batch = next(iterator)
        for replica in range(2):
            part = lanes.batch(step, first_lane=3 * replica, num_lanes=3)
            for name, expected in part.items():
                value = strategy.experimental_local_results(batch[name])
                np.testing.assert_array_equal(value[replica], expected)

lanes = TrainingLanes(tokens, num_lanes=6, segment_length=7)
check(
    lanes,
    lambda context: lanes.dataset(
        5, num_replicas=context.num_replicas_in_sync
    ),
    5,
    151,
)
lanes = EvaluationLanes(tokens, num_lanes=6, segment_length=7)
check(
    lanes,
    lambda context: lanes.dataset(num_replicas=context.num_replicas_in_sync),
    0,
    lanes.num_steps,
)
print("agreed")
"""


def run_python(script):
    """Runs a script with this official_lrm and returns what it printed."""
    root = pathlib.Path(official_lrm.data.__file__).parents[2]
    paths = [str(root), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def test_each_replica_keeps_its_lanes_under_a_strategy():
    assert run_python(_TWO_REPLICAS) == "agreed"


def test_importing_the_package_does_not_import_tensorflow():
    folder = str(pathlib.Path(official_lrm.data.__file__).parents[1])
    # A bare parent: the whole package may need TensorFlow, `data` does not.
    script = f"""
import sys, types
parent = sys.modules["official_lrm"] = types.ModuleType("official_lrm")
parent.__path__ = [{folder!r}]
import official_lrm.data
print("tensorflow" in sys.modules or "keras" in sys.modules)
"""
    assert run_python(script) == "False"
