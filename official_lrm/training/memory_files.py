"""Memories beside a checkpoint: one file for each host.

`ckpt-N.memories-00001-of-00004` holds the memories of the replicas of the
second of four hosts, `replica_08/memory_00` … Each host writes its own and
reads what its replicas need, so that gigabytes of memories never meet on one
machine.
"""

import tensorflow as tf

from official_lrm.training.checkpoint_contents import (
    READ_ERRORS,
    UnreadableCheckpointError,
    reason_of,
)


def write_memories(prefix, workers, replicas):
    """Writes the memories of this process's replicas, each on its host.

    Args:
        prefix: prefix of the checkpoint.
        workers: the Workers of the run.
        replicas: for each local replica a dict of tensors.
    """
    by_host = {}
    for device, replica, memories in zip(
        workers.host_devices, workers.local_replicas(), replicas, strict=True
    ):
        tensors = by_host.setdefault(device, {})
        for name, tensor in memories.items():
            tensors[_key(replica, name)] = tensor
    for index, (device, tensors) in enumerate(by_host.items()):
        host = workers.process * len(by_host) + index
        with tf.device(device):
            tf.raw_ops.SaveV2(
                prefix=_file(prefix, host, workers.num_hosts),
                tensor_names=list(tensors),
                shape_and_slices=[""] * len(tensors),
                tensors=list(tensors.values()),
            )


def read_memories(prefix, layout, workers, specs) -> list[dict]:
    """Reads the memories of this process's replicas, each on its host.

    The lanes of a run are dealt to its replicas in order. Another number of
    replicas than wrote them gets the same lanes, dealt anew.

    Args:
        prefix: prefix of the checkpoint.
        layout: how they were written: dict of `num_lanes`, `num_replicas` and
            `memory_files`.
        workers: the Workers of the run.
        specs: dict of (shape, dtype) by name, B being the lanes of a replica.

    Returns:
        A dict of tensors for each local replica.

    Raises:
        UnreadableCheckpointError: if a file is torn or missing.
    """
    lanes = layout["num_lanes"] // layout["num_replicas"]
    num_files = layout["memory_files"]
    replicas_of_file = layout["num_replicas"] // num_files

    def read(source, device):
        file = _file(prefix, source // replicas_of_file, num_files)
        try:
            with tf.device(device):
                tensors = tf.raw_ops.RestoreV2(
                    prefix=file,
                    tensor_names=[_key(source, name) for name in specs],
                    shape_and_slices=[""] * len(specs),
                    dtypes=[tf.as_dtype(dtype) for _, dtype in specs.values()],
                )
            return [
                tf.ensure_shape(tensor, (lanes, *shape[1:]))
                for tensor, (shape, _) in zip(
                    tensors, specs.values(), strict=True
                )
            ]
        except READ_ERRORS as error:
            raise UnreadableCheckpointError(
                f"memories {file} cannot be read: {reason_of(error)}"
            ) from None

    def gather(replica, device):
        wanted = next(iter(specs.values())).shape[0]
        first = replica * wanted
        sources = range(first // lanes, -(-(first + wanted) // lanes))
        parts = [read(source, device) for source in sources]
        skipped = first - sources.start * lanes
        with tf.device(device):
            return {
                name: tf.concat(tensors, axis=0)[skipped : skipped + wanted]
                for name, *tensors in zip(specs, *parts, strict=True)
            }

    return [
        gather(replica, device)
        for replica, device in zip(
            workers.local_replicas(), workers.host_devices, strict=True
        )
    ]


def _file(prefix, host, num_hosts):
    return f"{prefix}.memories-{host:05d}-of-{num_hosts:05d}"


def _key(replica, name):
    return f"replica_{replica:02d}/{name}"
