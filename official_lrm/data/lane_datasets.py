"""Batches of lanes as tf.data datasets: read in Python, or by the graph.

Both hold the same elements: the rows of replica 0 of the first step, those of
replica 1, and so on, then the next step.
"""

import dataclasses

# Tokens of a host that the graph cuts at once: 12 bytes each as inputs,
# targets and weights. A shard that is read should be worth it.
_TOKENS_AT_ONCE = 2**19


@dataclasses.dataclass(frozen=True)
class DatasetShape:
    """What a dataset of lanes holds.

    Attributes:
        start_step: int, step of the first element.
        num_steps: int, steps in all; None = without end.
        num_replicas: int r, elements of a step.
        rows: int, lanes of an element.
        segment_length: int T.
    """

    start_step: int
    num_steps: int | None
    num_replicas: int
    rows: int
    segment_length: int

    def element_spec(self):
        """Returns a dict of the tf.TensorSpec of an element's parts."""
        import tensorflow as tf

        shape = [self.rows, self.segment_length]
        return {
            "tokens": tf.TensorSpec(shape, tf.int32),
            "targets": tf.TensorSpec(shape, tf.int32),
            "weights": tf.TensorSpec(shape, tf.float32),
            "reset": tf.TensorSpec(shape[:1], tf.bool),
        }


def read_in_python(read, shape):
    """Returns a dataset whose elements are read in Python.

    The tokens stay where they are, in memory or in their file, and a batch
    takes far less time than the step that it is for.

    Args:
        read: function of a step, a first row and a number of rows that
            returns these rows as a dict of arrays.
        shape: DatasetShape.

    Returns:
        tf.data.Dataset.

    Raises:
        ValueError: the dataset is to be in another process, which could not
            call `read`.
    """
    import tensorflow as tf

    _refuse_other_process(tf)
    specs, r = shape.element_spec(), shape.num_replicas

    def read_element(index):
        step, replica = divmod(int(index), r)
        rows = read(step, replica * shape.rows, shape.rows)
        return [rows[name] for name in specs]

    def element(index):
        values = tf.numpy_function(
            read_element, [index], [spec.dtype for spec in specs.values()]
        )
        return {
            name: tf.ensure_shape(value, spec.shape)
            for (name, spec), value in zip(specs.items(), values, strict=True)
        }

    indices = tf.data.Dataset.counter(shape.start_step * r)
    return _finished(indices.map(element), shape)


def read_in_graph(read, shape):
    """Returns a dataset that is a graph, which runs in any process.

    It reads a block of many steps at once, and while these are used the next
    one: 12 MiB of memory (or a step, if that is more), and the shards as
    `TokenShards.take` says. Beginning at any step costs the same.

    Args:
        read: function of steps, an int64 tensor [S, 1], that returns the
            segments of S steps, those of all rows and replicas of a step one
            after the other, as a dict of tensors.
        shape: DatasetShape.

    Returns:
        tf.data.Dataset.
    """
    import tensorflow as tf

    specs = shape.element_spec()
    lanes = shape.rows * shape.num_replicas
    steps = max(1, _TOKENS_AT_ONCE // (lanes * shape.segment_length))
    if shape.num_steps is not None:
        steps = min(steps, shape.num_steps)

    def elements(first):
        values = read(first + tf.range(steps, dtype=tf.int64)[:, None])
        return {
            name: tf.reshape(
                values[name], [steps * shape.num_replicas, *spec.shape]
            )
            for name, spec in specs.items()
        }

    firsts = tf.data.Dataset.counter(shape.start_step, steps)
    # One call: tf.data would otherwise choose how many blocks to hold.
    blocks = firsts.map(elements, num_parallel_calls=1)
    return _finished(blocks.unbatch(), shape)


def _finished(dataset, shape):
    import tensorflow as tf

    cardinality = tf.data.INFINITE_CARDINALITY
    if shape.num_steps is not None:
        cardinality = shape.num_steps * shape.num_replicas
        dataset = dataset.take(cardinality)
    cardinality = tf.data.experimental.assert_cardinality(cardinality)
    return dataset.apply(cardinality).prefetch(tf.data.AUTOTUNE)


def _refuse_other_process(tf):
    # Where a strategy has remote hosts, it makes each host's dataset there.
    there = _process_of(tf.zeros([]))
    with tf.device(None):
        here = _process_of(tf.zeros([]))
    if there != here:
        raise ValueError(
            f"the lanes of {there} must be read from shards, which "
            f"task.corpus.shard_dir is for: Python runs on {here} only"
        )


def _process_of(tensor):
    parts = tensor.device.split("/")
    return "/".join(
        part for part in parts if part.startswith(("job:", "task:"))
    )
