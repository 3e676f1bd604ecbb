"""Compiles the steps of `tpu_step` for TPUs that are not there."""

import concurrent.futures
import concurrent.futures.process
import dataclasses
import functools
import multiprocessing
import re

import jax
import keras
import numpy as np
import tpu_step
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from official_lrm.models import TransformerXLLanguageModel
from official_lrm.tasks import LanguageModelingTask

PROGRAMS = ("train", "gradients", "evaluate")


class DoesNotFit(Exception):
    """The compiler's one-line account of how much HBM is missing."""


class CompilerKilled(Exception):
    """A program's compiler was ended from outside, as for want of memory."""


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a program that was compiled needs, of each core.

    Attributes:
        hbm_peak: bytes of HBM at the worst moment.
        temporaries: bytes of what is neither argument nor result.
        arguments: bytes of variables, memories and inputs.
        flops: of one run.
        bytes_accessed: of HBM in one run, as XLA estimates them.
    """

    hbm_peak: int
    temporaries: int
    arguments: int
    flops: float
    bytes_accessed: float


@dataclasses.dataclass(frozen=True)
class Options:
    """What changes a program's memory and not its model.

    Attributes:
        dtype_policy: Keras's.
        rematerialize: task.model.rematerialize.
        num_groups: trainer.gradient_accumulation_steps.
    """

    dtype_policy: str = "float32"
    rematerialize: bool | str = False
    num_groups: int = 1

    def __str__(self):
        parts = [self.dtype_policy]
        if self.rematerialize:
            long = self.rematerialize == "long"
            parts.append("rematerialize long" if long else "rematerialize")
        if self.num_groups > 1:
            parts.append(f"accumulate {self.num_groups}")
        return ", ".join(parts)


def topology_devices(name: str) -> list:
    """The cores of a topology such as "v3:4x4".

    Raises:
        ValueError: if the compiler knows no such topology.
    """
    try:
        return topologies.get_topology_desc(
            platform="tpu", topology_name=name
        ).devices
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"--topology={name} is none that libtpu knows: {reason}"
        ) from None


def compile_apart(*arguments):
    """`compile_program` in a process of its own.

    The compiler takes over 10 GB for the largest programs, and keeps it.

    Raises:
        CompilerKilled: if the process did not live to say more.
    """
    with concurrent.futures.ProcessPoolExecutor(
        max_workers=1, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        try:
            return pool.submit(compile_program, *arguments).result()
        except concurrent.futures.process.BrokenProcessPool:
            raise CompilerKilled(
                "the compiler was killed; it needs over 10 GB of this "
                "machine's memory for some programs"
            ) from None


def compile_program(program, settings, options, topology, lanes_per_core):
    """Compiles one of PROGRAMS.

    Args:
        program: "train" and "evaluate" are whole steps over all cores;
            "gradients" is forward and backward on one, its gradients results,
            so that its temporaries are activations alone. (XLA lays some of
            them where a gradient will be written later.)
        settings: RunSettings.
        options: Options.
        topology: such as "v3:4x4".
        lanes_per_core: B on each.

    Returns:
        Figures.

    Raises:
        DoesNotFit: if the program needs more HBM than there is.
    """
    devices = topology_devices(topology)
    if program == "gradients":
        devices = devices[:1]
    model, optimizer, state = _abstract(settings, options.dtype_policy)
    if program != "train":
        del state["optimizer"]
    if program == "evaluate":
        length = settings.validation.segment_length
        state["positions"] = jax.eval_shape(
            lambda state: tpu_step.positions(model, state, length), state
        )
    inputs = _inputs(
        model, program, settings, lanes_per_core * len(devices), len(devices)
    )
    mesh = Mesh(np.array(devices), ("lanes",))
    everywhere, spread = PartitionSpec(), PartitionSpec("lanes")
    step, outputs = _step(
        program, model, optimizer, settings, options, everywhere, spread
    )
    step = jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(everywhere, spread, spread),
        out_specs=outputs,
        check_vma=False,
    )
    memories = inputs.pop("memories")
    # What a step replaces is given up to it: the state where it has an
    # optimizer, and the memories always.
    donated = (0, 1) if program == "train" else (1,)
    jitted = jax.jit(
        step,
        in_shardings=tuple(
            NamedSharding(mesh, spec) for spec in (everywhere, spread, spread)
        ),
        out_shardings=jax.tree.map(
            functools.partial(NamedSharding, mesh), outputs
        ),
        donate_argnums=donated,
    )
    lowered = jitted.trace(state, memories, inputs).lower(
        lowering_platforms=("tpu",)
    )
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise DoesNotFit(_shortage(str(error))) from None
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    return Figures(
        hbm_peak=memory.peak_memory_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        arguments=memory.argument_size_in_bytes,
        flops=cost["flops"],
        bytes_accessed=cost["bytes accessed"],
    )


def _abstract(settings, dtype_policy):
    # The model, its optimizer and the shapes of their variables. Nothing is
    # allocated: within jax.eval_shape initial values are shapes, too.
    keras.config.set_dtype_policy(dtype_policy)
    made = []

    def make():
        model = TransformerXLLanguageModel(**settings.model)
        optimizer = LanguageModelingTask.create_optimizer(settings.optimizer)
        optimizer.build(model.trainable_variables)
        made.extend([model, optimizer])
        return tpu_step.state_of(model, optimizer)

    state = jax.eval_shape(make)
    return *made, state


def _inputs(model, program, settings, num_lanes, num_cores):
    lanes = settings.validation if program == "evaluate" else settings.train
    shape = (num_lanes, lanes.segment_length)
    inputs = {
        "tokens": (shape, "int32"),
        "targets": (shape, "int32"),
        "weights": (shape, "float32"),
        "reset": (shape[:1], "bool"),
        "memories": dict(model.memory_specs(num_lanes)),
    }
    if program != "evaluate":
        inputs["seed"] = ((num_cores, 2), "int32")
    return jax.tree.map(
        lambda spec: jax.ShapeDtypeStruct(*spec),
        inputs,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def _step(program, model, optimizer, settings, options, everywhere, spread):
    # A function of (state, memories, inputs) on one core, and how its results
    # lie on the cores.
    def joined(memories, inputs):
        inputs = {**inputs, "memories": memories}
        if "seed" in inputs:  # Each core has a row.
            inputs["seed"] = inputs["seed"][0]
        return inputs

    def train(state, memories, inputs):
        return tpu_step.train_step(
            model,
            optimizer,
            state,
            joined(memories, inputs),
            clip=settings.optimizer.clip_norm,
            rematerialize=options.rematerialize,
            num_groups=options.num_groups,
            axis="lanes",
        )

    def gradients(state, memories, inputs):
        return tpu_step.gradients(
            model,
            state,
            joined(memories, inputs),
            inputs["weights"].sum(),
            rematerialize=options.rematerialize,
            num_groups=options.num_groups,
        )

    def evaluate(state, memories, inputs):
        return tpu_step.evaluation_step(
            model, state, joined(memories, inputs), axis="lanes"
        )

    return {
        "train": (train, (everywhere, spread, everywhere, everywhere)),
        "gradients": (gradients, (everywhere, spread)),
        "evaluate": (evaluate, (everywhere, everywhere, spread)),
    }[program]


def _shortage(message):
    # "... Used 18.50G of 15.48G hbm. Exceeded hbm capacity by 3.02G. ..."
    found = re.search(r"Used (\S+) of (\S+) hbm", message)
    if found is None:
        return message.split("\n")[0]
    return f"needs {found[1]}iB of {found[2]}iB HBM"
