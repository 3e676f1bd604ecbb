"""What a checkpoint says of its run, and whether another may go on from it."""

import json

import tensorflow as tf
from absl import logging

from official_lrm.training.checkpoint_contents import FORMAT

# What memories depend on beside the number of replicas.
_LAYOUT = (
    "num_lanes",
    "segment_length",
    "max_tokens",
    "spans",
    "dtype_policy",
)


class RunDescription(tf.train.experimental.PythonState):
    """What a checkpoint says of its run: a dict kept as JSON.

    Args:
        current: the dict of the run at hand; {} where nothing is trained.
    """

    def __init__(self, current):
        # As it comes back from a file.
        current = json.loads(json.dumps(current))
        self.current = {"format": FORMAT, **current} if current else {}
        self.restored = {}

    def serialize(self):
        """Returns the JSON text."""
        return json.dumps(self.current, sort_keys=True)

    def deserialize(self, string_value):
        """Keeps the restored dict beside the current one."""
        self.restored = json.loads(string_value)

    def check(self, path, restored):
        """Refuses a checkpoint that this run cannot go on from.

        Args:
            path: prefix of the checkpoint.
            restored: what it says of its run.

        Raises:
            ValueError: if it was trained on another text.
        """
        if not self.current or not restored:
            return  # An evaluator, or a checkpoint before the first step.
        for name in ("corpus_fingerprint", "split"):
            if restored[name] != self.current[name]:
                raise ValueError(
                    f"checkpoint {path} was trained on another text: its "
                    f"{name} is {restored[name]}, this run's "
                    f"{self.current[name]}. Give another --model_dir, or start "
                    "from its weights with --init_from."
                )

    def memories_go_on(self) -> bool:
        """Whether the run goes on with the memories of what was restored.

        Warns of everything that makes it another run than the one saved.
        """
        current, restored = self.current, self.restored
        if not current or not restored:
            return False
        for name, consequence in (
            ("seed", "dropout is drawn anew"),
            ("gradient_accumulation_steps", "dropout is drawn anew"),
            ("optimizer", "the learning rate goes on by this run's"),
        ):
            if restored[name] != current[name]:
                logging.warning(
                    "%s was %s and is %s: %s.",
                    name,
                    restored[name],
                    current[name],
                    consequence,
                )
        # What variables do not show. Older checkpoints do not have it.
        for name, value in restored.get("model", {}).items():
            if value != current["model"].get(name):
                logging.warning(
                    "task.model.%s was %s and is %s: the run goes on as "
                    "another model.",
                    name,
                    value,
                    current["model"].get(name),
                )
        changed = [
            f"{name} {restored.get(name)} -> {current[name]}"
            for name in _LAYOUT
            if restored.get(name) != current[name]
        ]
        if changed:
            logging.warning("memories start empty: %s.", ", ".join(changed))
            return False
        before, now = restored["num_replicas"], current["num_replicas"]
        if before != now:
            logging.warning(
                "the memories of %d lanes are dealt anew, from %d replicas to "
                "%d: each lane goes on with its own; dropout is drawn anew, "
                "and sums are rounded differently.",
                current["num_lanes"],
                before,
                now,
            )
        elif restored["memory_files"] != current["memory_files"]:
            logging.warning(
                "saved by %d hosts, resumed by %d with as many replicas: sums "
                "are rounded differently.",
                restored["memory_files"],
                current["memory_files"],
            )
        return True
