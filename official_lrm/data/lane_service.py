"""Lanes read by a worker of a tf.data service, in order and once.

Lanes go on from element to element, so every element must come, once and in
its place. Of tf.data's ways to deal with a dataset that is `ShardingPolicy.OFF`
with one worker: a worker then runs the whole dataset, and the one job of each
host is its own. With two workers every element comes twice, and a worker that
was started again begins anew: both were tried, and are found here by the step
that comes with each element. Without a worker TensorFlow waits for one.
"""

import re
import socket

_ADDRESS = re.compile(r"grpc://(\[[^\]]+\]|[^:/]+):(\d{1,5})")


def split_address(address):
    """Returns host and port of a dispatcher.

    Args:
        address: str, "grpc://host:port".

    Raises:
        ValueError: it is not that.
    """
    found = _ADDRESS.fullmatch(address)
    if not found or not 0 < int(found[2]) < 2**16:
        raise ValueError(
            "the address of a tf.data service must be grpc://host:port, "
            f"got {address!r}"
        )
    return found[1].strip("[]"), int(found[2])


def check_dispatcher(address, timeout=10.0):
    """Connects to a dispatcher: TensorFlow would wait for it without end.

    Args:
        address: str, "grpc://host:port".
        timeout: float, seconds.

    Raises:
        ValueError: the address is not one.
        OSError: nothing answers there.
    """
    host, port = split_address(address)
    try:
        socket.create_connection((host, port), timeout).close()
    except OSError as error:
        raise OSError(
            f"no dispatcher of a tf.data service answers at {address}: "
            f"{error}; start it, then one worker"
        ) from error


def read_through_service(dataset, address, start_step=0, num_replicas=1):
    """Returns a dataset that a worker of a tf.data service runs.

    The job has no name, so it is one of its own for each iterator: no host
    gets elements of another's, and a run that goes on none of an earlier one.

    Args:
        dataset: tf.data.Dataset of lanes that is a graph: made with `shards`.
        address: str, "grpc://host:port", the dispatcher's.
        start_step: int, the step of the first element.
        num_replicas: int, elements of a step.

    Returns:
        tf.data.Dataset of the same elements.

    Raises:
        ValueError: the address is not one.
        OSError: no dispatcher is there.
        tf.errors.InvalidArgumentError: when it runs and an element is not
            the one that is due.
    """
    import tensorflow as tf

    service = tf.data.experimental.service
    check_dispatcher(address)
    cardinality = dataset.cardinality()
    served = dataset.enumerate().apply(
        service.distribute(service.ShardingPolicy.OFF, address)
    )

    def name(index):
        step = tf.strings.as_string(start_step + index // num_replicas)
        if num_replicas == 1:
            return tf.strings.join(["step ", step])
        replica = tf.strings.as_string(index % num_replicas)
        return tf.strings.join(["step ", step, " of replica ", replica])

    def check(due, indexed):
        index, element = indexed
        message = tf.strings.join(
            [
                f"the tf.data service at {address} delivered ",
                name(index),
                " where ",
                name(due),
                " is due: the dispatcher must have exactly one worker, which "
                "is not started again during a run. Start them anew, and the "
                "run goes on from its checkpoint",
            ]
        )
        with tf.control_dependencies(
            [tf.debugging.Assert(tf.equal(due, index), [message])]
        ):
            return tf.nest.map_structure(tf.identity, element)

    due = tf.data.Dataset.counter()
    checked = tf.data.Dataset.zip(due, served).map(check)
    return checked.apply(
        tf.data.experimental.assert_cardinality(cardinality)
    ).prefetch(tf.data.AUTOTUNE)
