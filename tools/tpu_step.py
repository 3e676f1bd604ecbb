"""The steps of LanguageModelingTask, for JAX.

The same step as `official_lrm/tasks/language_modeling.py` takes, of the same
model and the same optimizer: tests/tools/test_tpu_step.py holds the two
together. It trains nothing; `tools/compile_for_tpu.py` compiles it.

A state is a dict of lists of arrays: "trainable" and "other" variables of the
model, and those of the "optimizer"; for evaluation, the model's projected
"positions". Inputs are the task's: `tokens`, `targets`
[B, T] int32, `weights` [B, T] float32, `reset` [B] bool, `memories`, and in
training `seed` [2] int32.
"""

import jax
import jax.numpy as jnp
import keras

from official_lrm.memory.state import reset_lanes


def state_of(model, optimizer=None):
    """The variables' values now.

    Args:
        model: a TransformerXLLanguageModel.
        optimizer: one that was built for it, or None.
    """
    state = {
        "trainable": [variable.value for variable in model.trainable_variables],
        "other": [variable.value for variable in model.non_trainable_variables],
    }
    if optimizer is not None:
        state["optimizer"] = [
            variable.value for variable in optimizer.variables
        ]
    return state


def gradients(model, state, inputs, targets, rematerialize=False, num_groups=1):
    """Loss and gradients of some lanes.

    Args:
        model: a TransformerXLLanguageModel.
        state: its state.
        inputs: of training.
        targets: the sum of the weights that the mean loss is over.
        rematerialize: as TransformerXLLanguageModel.score's.
        num_groups: groups of lanes that are worked through one after the
            other.

    Returns:
        ((loss, gradients), memories).
    """

    def loss_of(trainable, lanes, seed):
        log_probs, segment = _score(
            model,
            {**state, "trainable": trainable},
            lanes,
            training=True,
            seed=seed,
            rematerialize=rematerialize,
            append=False,
        )
        weights = (lanes["weights"] / targets).astype(log_probs.dtype)
        return -jnp.sum(log_probs * weights), segment

    def group_gradients(lanes, seed):
        (loss, segment), values = jax.value_and_grad(loss_of, has_aux=True)(
            state["trainable"], lanes, seed
        )
        memories = model.append_segment(lanes["memories"], segment, values)
        return (loss, values), memories

    lanes = {name: x for name, x in inputs.items() if name != "seed"}
    if num_groups == 1:
        return group_gradients(lanes, inputs["seed"])

    def add_group(sums, group):
        lanes, number = group
        seed = jax.random.fold_in(inputs["seed"].astype("uint32"), number)
        added, memories = group_gradients(lanes, seed)
        return jax.tree.map(jnp.add, sums, added), memories

    grouped = jax.tree.map(
        lambda x: x.reshape(num_groups, -1, *x.shape[1:]), lanes
    )
    first = jax.tree.map(lambda x: x[0], grouped)
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(group_gradients, first, inputs["seed"])[0],
    )
    sums, memories = jax.lax.scan(
        add_group, zeros, (grouped, jnp.arange(num_groups))
    )
    return sums, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), memories)


def train_step(
    model,
    optimizer,
    state,
    inputs,
    clip=None,
    rematerialize=False,
    num_groups=1,
    axis=None,
):
    """One update.

    Args:
        model: a TransformerXLLanguageModel.
        optimizer: as LanguageModelingTask.create_optimizer makes it, built.
        state: of both.
        inputs: of training, of one core's lanes.
        clip: bound on the gradient's global norm, or None.
        rematerialize: as for `gradients`.
        num_groups: as for `gradients`.
        axis: the axis of the mesh that lanes are spread over, or None.

    Returns:
        (state, memories, loss, gradient_norm), the loss of all cores.
    """

    def total(x):
        return x if axis is None else jax.lax.psum(x, axis)

    (loss, values), memories = gradients(
        model,
        state,
        inputs,
        total(jnp.sum(inputs["weights"])),
        rematerialize,
        num_groups,
    )
    values = total(values)
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(value)) for value in values))
    if clip is not None:
        scale = clip / jnp.maximum(norm, clip)
        values = [value * scale.astype(value.dtype) for value in values]
    trainable, variables = optimizer.stateless_apply(
        state["optimizer"], values, state["trainable"]
    )
    state = {**state, "trainable": trainable, "optimizer": variables}
    return state, memories, total(loss), norm


def positions(model, state, segment_length):
    """What an evaluation projects once: see `model.project_positions`.

    Args:
        model: a TransformerXLLanguageModel.
        state: its state.
        segment_length: T.

    Returns:
        A list of arrays, for the state.
    """
    with _weights_of(model, state):
        return list(model.project_positions(segment_length))


def evaluation_step(model, state, inputs, axis=None):
    """Scores a segment.

    Args:
        model: a TransformerXLLanguageModel.
        state: its state, with or without positions.
        inputs: of one core's lanes; no `seed`.
        axis: as for `train_step`.

    Returns:
        (nats, tokens, memories): summed over the targets of all cores.
    """
    log_probs, memories = _score(
        model, state, inputs, projected_positions=state.get("positions")
    )
    sums = -jnp.sum(log_probs * inputs["weights"]), jnp.sum(inputs["weights"])
    if axis is not None:
        sums = jax.lax.psum(sums, axis)
    return *sums, memories


def _score(model, state, inputs, **options):
    with _weights_of(model, state):
        return model.score(
            inputs["tokens"],
            inputs["targets"],
            reset_lanes(inputs["memories"], inputs["reset"]),
            **options,
        )


def _weights_of(model, state):
    values = [
        *zip(model.trainable_variables, state["trainable"], strict=True),
        *zip(model.non_trainable_variables, state["other"], strict=True),
    ]
    return keras.StatelessScope(state_mapping=values)
