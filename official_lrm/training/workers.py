"""The processes and hosts that a strategy trains on."""

import tensorflow as tf


class Workers:
    """Who takes part in a run, and what they agree on.

    A process is one run of the program: MultiWorkerMirroredStrategy has
    several, which do the same things in the same order; every other strategy
    has one. A host is a machine with replicas: a process of
    MultiWorkerMirroredStrategy, or one of the machines of a TPU slice, which
    one process drives.

    Args:
        strategy: tf.distribute.Strategy.
    """

    def __init__(self, strategy):
        self._strategy = strategy
        self.num_processes, self.process = 1, 0
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            resolver = strategy.cluster_resolver
            cluster = resolver.cluster_spec().as_dict()
            chiefs = len(cluster.get("chief", ()))
            self.num_processes = chiefs + len(cluster.get("worker", ())) or 1
            if resolver.task_type != "chief":
                self.process = chiefs + (resolver.task_id or 0)
        try:
            devices = strategy.extended.worker_devices
        except RuntimeError:  # TensorFlow's default strategy has no list.
            devices = ("/device:CPU:0",)
        #: CPU device of the host of each of this process's replicas.
        self.host_devices = [
            tf.DeviceSpec.from_string(device)
            .replace(device_type="CPU", device_index=0)
            .to_string()
            for device in devices
        ]
        self._sum = tf.function(self._sum_over_replicas)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what is written once."""
        return self.process == 0

    @property
    def num_hosts(self) -> int:
        """Hosts of the whole run."""
        return self.num_processes * len(set(self.host_devices))

    @property
    def num_replicas(self) -> int:
        """Replicas of the whole run."""
        return self._strategy.num_replicas_in_sync

    def local_replicas(self) -> range:
        """Numbers of this process's replicas among all of the run's."""
        count = len(self.host_devices)
        return range(self.process * count, (self.process + 1) * count)

    def sum(self, value: int) -> int:
        """Adds up one integer of each process; also a barrier.

        Args:
            value: this process's.
        """
        if self.num_processes == 1:
            return value
        total = self._sum(tf.constant(value, tf.int64))
        return int(total) // len(self.host_devices)

    def of_chief(self, value: int) -> int:
        """The chief's value, on every process."""
        return self.sum(value if self.is_chief else 0)

    def _sum_over_replicas(self, value):
        strategy = self._strategy
        values = strategy.run(tf.identity, args=(value,))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)
