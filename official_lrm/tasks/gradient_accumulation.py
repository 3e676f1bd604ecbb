"""A step's lanes in groups, one after the other."""

import tensorflow as tf


def check_groups(num_groups: int, num_lanes: int):
    """Refuses lanes that cannot be cut into equal groups.

    Args:
        num_groups: `trainer.gradient_accumulation_steps`.
        num_lanes: lanes of one replica.

    Raises:
        ValueError: naming what is allowed.
    """
    if num_lanes % num_groups:
        divisors = [n for n in range(1, num_lanes + 1) if not num_lanes % n]
        raise ValueError(
            f"trainer.gradient_accumulation_steps must divide the {num_lanes} "
            f"lanes of a replica, so be one of "
            f"{', '.join(map(str, divisors))}; got {num_groups}."
        )


def accumulate(function, inputs, num_groups: int, initial):
    """Runs a function on groups of lanes and sums what it computes.

    The groups are the lanes 0 to B/G - 1, then the next B/G, and so on. They
    really run one after the other, so that the activations of one group exist
    at a time. All shapes are static, as TPUs need them.

    Args:
        function: takes the inputs of a group and its number, a scalar int32
            tensor; returns `(sums, memories)`, a structure of tensors and the
            group's memories after the step.
        inputs: nested dict of tensors [B, ...], `memories` among them.
        num_groups: G, a divisor of B.
        initial: structure of zeros as `sums`.

    Returns:
        (sums, memories): summed over the groups; of all lanes, as
        `inputs["memories"]`.
    """
    grouped = tf.nest.map_structure(
        lambda x: tf.reshape(
            x, (num_groups, x.shape[0] // num_groups, *x.shape[1:])
        ),
        inputs,
    )
    memories = {
        name: tf.TensorArray(
            memory.dtype, size=num_groups, element_shape=memory.shape[1:]
        )
        for name, memory in grouped["memories"].items()
    }

    def body(group, sums, memories):
        one = tf.nest.map_structure(lambda x: tf.gather(x, group), grouped)
        added, new_memories = function(one, group)
        sums = tf.nest.map_structure(tf.add, sums, added)
        memories = {
            name: array.write(group, new_memories[name])
            for name, array in memories.items()
        }
        return group + 1, sums, memories

    _, sums, memories = tf.while_loop(
        lambda group, *_: group < num_groups,
        body,
        (tf.constant(0), initial, memories),
        parallel_iterations=1,
        maximum_iterations=num_groups,
    )
    memories = {
        name: tf.reshape(array.stack(), inputs["memories"][name].shape)
        for name, array in memories.items()
    }
    return sums, memories
