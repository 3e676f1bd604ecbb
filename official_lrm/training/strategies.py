"""The tf.distribute.Strategy that a config asks for."""

import contextlib
import json
import os
import signal
import threading

import tensorflow as tf
from absl import logging
from official.common import distribute_utils

from official_lrm.training.checkpoint_contents import reason_of


def build_strategy(runtime):
    """Builds the tf.distribute.Strategy of a Model Garden runtime config.

    That of several workers waits for all of them.

    Args:
        runtime: RuntimeConfig.

    Raises:
        ValueError: if it asks for devices that are not there, or for several
            workers without saying which, or the TPU does not answer.
    """
    check_runtime(runtime)
    if tf.config.list_physical_devices("GPU") and not runtime.num_gpus:
        logging.warning(
            "training on the CPU: runtime.num_gpus is 0, TensorFlow sees GPUs."
        )
    if runtime.worker_hosts:
        distribute_utils.configure_cluster(
            runtime.worker_hosts, runtime.task_index
        )
    with _sigterm_as_before(), _naming_tpu(runtime):
        return distribute_utils.get_distribution_strategy(
            distribution_strategy=runtime.distribution_strategy,
            all_reduce_alg=runtime.all_reduce_alg,
            num_gpus=runtime.num_gpus,
            num_packs=runtime.num_packs,
            tpu_address=runtime.tpu,
            **runtime.model_parallelism(),
        )


def check_runtime(runtime):
    """Refuses a runtime config that no strategy can be built of.

    Asks no other machine whether it is there.

    Args:
        runtime: RuntimeConfig.

    Raises:
        ValueError: as `build_strategy`, but for the TPU.
    """
    if runtime.distribution_strategy == "multi_worker_mirrored":
        _check_cluster(runtime)
    visible = len(tf.config.list_physical_devices("GPU"))
    if runtime.num_gpus > visible:
        raise ValueError(
            f"runtime.num_gpus must be at most {visible}, the GPUs that "
            f"TensorFlow sees; got {runtime.num_gpus}."
        )
    one = runtime.distribution_strategy == "one_device"
    if runtime.num_gpus < 0 or (one and runtime.num_gpus > 1):
        raise ValueError(
            "runtime.num_gpus must be 0 or more, at most 1 for "
            "runtime.distribution_strategy=one_device; got "
            f"{runtime.num_gpus}."
        )


@contextlib.contextmanager
def _sigterm_as_before():
    """SIGTERM does afterwards what it did before, in the main thread.

    TensorFlow's service of several workers takes it to tell others of a
    preemption, which nobody asks for here: the process would outlive it.
    """
    handler = signal.getsignal(signal.SIGTERM)
    yield
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and handler is not None:  # None: not of Python.
        signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _naming_tpu(runtime):
    try:
        yield
    except (OSError, ValueError, tf.errors.OpError) as error:
        if runtime.distribution_strategy != "tpu":
            raise
        raise ValueError(
            f"the TPU runtime.tpu={runtime.tpu!r} (--tpu) cannot be connected "
            f"to: {reason_of(error)}"
        ) from None


def _check_cluster(runtime):
    # TensorFlow waits for ever for a worker that a typing error invents.
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        task = config.get("task", {})
        cluster = config.get("cluster", {})
        known = {*cluster} <= {"chief", "worker"}
        hosts = cluster[task["type"]] if config else ["unused"]
        valid = known and 0 <= int(task.get("index", 0)) < len(hosts)
    except (ValueError, KeyError, TypeError, AttributeError):
        valid = False
    if not valid:
        raise ValueError(
            "TF_CONFIG must be JSON with the hosts of `cluster` (chief, "
            "worker) and the `type` and `index` of `task` among them; got "
            f"{os.environ['TF_CONFIG']!r}."
        )
    if config and runtime.worker_hosts:
        raise ValueError(
            "give TF_CONFIG or runtime.worker_hosts, not both; got "
            f"{runtime.worker_hosts!r} beside TF_CONFIG."
        )
    if not config and not runtime.worker_hosts:
        raise ValueError(
            "runtime.distribution_strategy=multi_worker_mirrored needs "
            "runtime.worker_hosts=host:port,host:port,... and "
            "runtime.task_index, or TF_CONFIG."
        )
    if not config:
        hosts = runtime.worker_hosts.split(",")
        wrong = [h for h in hosts if not h.rpartition(":")[2].isdecimal()]
        if wrong or len(set(hosts)) < len(hosts):
            raise ValueError(
                "runtime.worker_hosts must be different host:port, separated "
                f"by commas; got {runtime.worker_hosts!r}."
            )
        if not 0 <= runtime.task_index < len(hosts):
            raise ValueError(
                f"runtime.task_index must be from 0 to {len(hosts) - 1}, this "
                "process's place in runtime.worker_hosts; got "
                f"{runtime.task_index}."
            )
