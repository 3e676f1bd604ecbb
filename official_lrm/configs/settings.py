"""Model Garden configs in, validated and frozen plain objects out."""

import dataclasses
import types
import typing
from collections.abc import Mapping

from official.modeling import hyperparams

from official_lrm.memory.spans import MemorySpans

#: `runtime.mixed_precision_dtype` -> Keras dtype policy.
DTYPE_POLICIES = {
    None: "float32",
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float64": "float64",
}

#: multi_worker_mirrored is missing: its checkpoints are not written yet.
STRATEGIES = ("one_device", "mirrored", "tpu")


@dataclasses.dataclass(frozen=True)
class LanesSettings:
    """How a split is cut: B lanes of segments of T tokens."""

    split: str
    num_lanes: int
    segment_length: int


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """Adam with a linear warm-up and a cosine.

    Attributes:
        learning_rate: the peak.
        warmup_steps: steps of linear growth.
        warmup_learning_rate: where it starts.
        decay_steps: steps of the cosine from `offset` on.
        offset: step at which the cosine begins.
        alpha: the last learning rate as a fraction of the peak.
        beta_1: Adam's.
        beta_2: Adam's.
        epsilon: Adam's.
        clip_norm: bound on the global norm of the gradient, or None.
    """

    learning_rate: float
    warmup_steps: int
    warmup_learning_rate: float
    decay_steps: int
    offset: int
    alpha: float
    beta_1: float
    beta_2: float
    epsilon: float
    clip_norm: float | None


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Everything that decides a run's numbers.

    Attributes:
        model: keyword arguments of TransformerXLLanguageModel.
        corpus: name of the corpus.
        input_path: its files, "" where it needs none.
        train: lanes of training.
        validation: lanes of evaluation.
        optimizer: the optimizer.
        dtype_policy: name of the Keras dtype policy.
        seed: of initial weights and dropout.
        train_steps: steps of the whole run.
    """

    model: Mapping
    corpus: str
    input_path: str
    train: LanesSettings
    validation: LanesSettings
    optimizer: OptimizerSettings
    dtype_policy: str
    seed: int
    train_steps: int

    @property
    def spans(self) -> MemorySpans:
        """The memory spans of the model."""
        return self.model["spans"]


def resolve(params) -> RunSettings:
    """Validates an experiment's config.

    Args:
        params: a Model Garden ExperimentConfig whose task is a
            LanguageModelingConfig.

    Returns:
        RunSettings.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """
    check_types("task", params.task)
    check_types("trainer", params.trainer)
    check_types("runtime", params.runtime)
    task, trainer, runtime = params.task, params.trainer, params.runtime
    _refuse_ignored(task, trainer, runtime)
    if runtime.mixed_precision_dtype not in DTYPE_POLICIES:
        raise ValueError(
            "runtime.mixed_precision_dtype must be one of float32, bfloat16 "
            f"and float64; got {runtime.mixed_precision_dtype!r}."
        )
    if runtime.distribution_strategy not in STRATEGIES:
        raise ValueError(
            f"runtime.distribution_strategy must be one of "
            f"{', '.join(STRATEGIES)}; got "
            f"{runtime.distribution_strategy!r}."
        )
    if runtime.tpu is not None and runtime.distribution_strategy != "tpu":
        raise ValueError(
            f"runtime.tpu={runtime.tpu!r} needs "
            "runtime.distribution_strategy=tpu; got "
            f"{runtime.distribution_strategy!r}."
        )
    for name in (
        "steps_per_loop",
        "summary_interval",
        "checkpoint_interval",
        "validation_interval",
        "max_to_keep",
    ):
        _integer(f"trainer.{name}", getattr(trainer, name), minimum=1)
    train_steps = _integer("trainer.train_steps", trainer.train_steps)
    validation_steps = trainer.validation_steps
    if validation_steps != -1:
        _integer("trainer.validation_steps", validation_steps, minimum=1)
    if trainer.summary_interval % trainer.steps_per_loop:
        raise ValueError(
            "trainer.summary_interval must be a multiple of "
            f"trainer.steps_per_loop={trainer.steps_per_loop}; got "
            f"{trainer.summary_interval}."
        )
    return RunSettings(
        model=types.MappingProxyType(model_arguments(task.model)),
        corpus=_string("task.corpus.name", task.corpus.name),
        input_path=_path("task.corpus.input_path", task.corpus.input_path),
        train=_lanes("task.train_data", task.train_data),
        validation=_lanes("task.validation_data", task.validation_data),
        optimizer=optimizer_settings(trainer.optimizer_config, train_steps),
        dtype_policy=DTYPE_POLICIES[runtime.mixed_precision_dtype],
        seed=_integer("task.seed", task.seed),
        train_steps=train_steps,
    )


def model_arguments(config) -> dict:
    """Keyword arguments of TransformerXLLanguageModel from its config.

    Args:
        config: a LanguageModelConfig.

    Returns:
        A dict; `spans` is a MemorySpans, and there is no `num_layers`.

    Raises:
        ValueError: if the spans do not fit the number of layers.
    """
    arguments = config.as_dict()
    num_layers = _integer(
        "task.model.num_layers", arguments.pop("num_layers"), minimum=1
    )
    arguments["spans"] = _spans(arguments["spans"], num_layers)
    for name in (
        "dropout",
        "attention_dropout",
        "layer_norm_epsilon",
        "initializer_stddev",
    ):
        arguments[name] = _number(
            f"task.model.{name}", arguments[name], above=float("-inf")
        )
    return arguments


def _spans(config: dict, num_layers: int) -> MemorySpans:
    lengths = config["lengths"]
    try:
        if lengths is None:
            num_long = config["num_long"]
            return MemorySpans.arrange(
                num_layers,
                num_layers if num_long is None else num_long,
                config["placement"],
                config["long"],
                config["short"],
            )
        spans = MemorySpans(lengths, config["is_long"])
    except ValueError as error:
        raise ValueError(f"task.model.spans: {error}") from None
    if len(spans) != num_layers:
        raise ValueError(
            f"task.model.spans.lengths must name task.model.num_layers="
            f"{num_layers} layers; got {len(spans)}: {list(spans)}."
        )
    return spans


def optimizer_settings(config, train_steps: int) -> OptimizerSettings:
    """Reads Model Garden's optimizer config.

    Args:
        config: an OptimizationConfig of type adam, cosine, linear.
        train_steps: where the cosine ends unless the config says otherwise.

    Returns:
        OptimizerSettings.

    Raises:
        ValueError: naming what is not supported.
    """
    prefix = "trainer.optimizer_config"
    for name, section, allowed in (
        ("optimizer", config.optimizer, ("adam",)),
        ("learning_rate", config.learning_rate, ("cosine",)),
        ("warmup", config.warmup, ("linear",)),
    ):
        if section.type not in allowed:
            raise ValueError(
                f"{prefix}.{name}.type must be {' or '.join(allowed)}; got "
                f"{section.type!r}."
            )
    if config.ema is not None:
        raise ValueError(
            f"{prefix}.ema must be null: averaged weights are not supported; "
            f"got {config.ema.as_dict()!r}."
        )
    adam = config.optimizer.adam
    for name in ("clipnorm", "clipvalue", "amsgrad"):
        if getattr(adam, name):
            raise ValueError(
                f"{prefix}.optimizer.adam.{name} is not supported (clip with "
                f"global_clipnorm); got {getattr(adam, name)!r}."
            )
    cosine, warmup = config.learning_rate.cosine, config.warmup.linear
    name = f"{prefix}.learning_rate.cosine"
    offset = _integer(f"{name}.offset", cosine.offset)
    decay_steps = cosine.decay_steps
    if decay_steps is None:
        decay_steps = max(1, train_steps - offset)
    clip_norm = adam.global_clipnorm
    if clip_norm is not None:
        clip_norm = _number(
            f"{prefix}.optimizer.adam.global_clipnorm", clip_norm, above=0
        )
    return OptimizerSettings(
        learning_rate=_number(
            f"{name}.initial_learning_rate", cosine.initial_learning_rate
        ),
        warmup_steps=_integer(
            f"{prefix}.warmup.linear.warmup_steps", warmup.warmup_steps
        ),
        warmup_learning_rate=_number(
            f"{prefix}.warmup.linear.warmup_learning_rate",
            warmup.warmup_learning_rate,
        ),
        decay_steps=_integer(f"{name}.decay_steps", decay_steps, minimum=1),
        offset=offset,
        alpha=_number(f"{name}.alpha", cosine.alpha),
        beta_1=_number(f"{prefix}.optimizer.adam.beta_1", adam.beta_1),
        beta_2=_number(f"{prefix}.optimizer.adam.beta_2", adam.beta_2),
        epsilon=_number(
            f"{prefix}.optimizer.adam.epsilon", adam.epsilon, above=0
        ),
        clip_norm=clip_norm,
    )


# Fields of Model Garden's dataclasses that a run here depends on.
_USED = {
    "task": {
        "name",
        "init_checkpoint",
        "model",
        "corpus",
        "train_data",
        "validation_data",
        "seed",
    },
    "trainer": {
        "optimizer_config",
        "steps_per_loop",
        "summary_interval",
        "checkpoint_interval",
        "max_to_keep",
        "continuous_eval_timeout",
        "train_steps",
        "validation_steps",
        "validation_interval",
        "validation_summary_subdir",
    },
    "runtime": {
        "distribution_strategy",
        "tpu",
        "num_gpus",
        "all_reduce_alg",
        "num_packs",
        "mixed_precision_dtype",
    },
}

# Model Garden's own default would add to what a checkpoint holds.
_REQUIRED = {"trainer.preemption_on_demand_checkpoint": False}


def _refuse_ignored(task, trainer, runtime):
    # Accepted and ignored would be worse.
    for prefix, config in (
        ("task", task),
        ("trainer", trainer),
        ("runtime", runtime),
    ):
        default = type(config)()
        for field in dataclasses.fields(config):
            name = f"{prefix}.{field.name}"
            if field.name in _USED[prefix]:
                continue
            value = getattr(config, field.name)
            allowed = _REQUIRED.get(name, getattr(default, field.name))
            if value != allowed:
                raise ValueError(
                    f"{name} is not supported and must be {allowed!r}; got "
                    f"{value!r}."
                )


def check_types(prefix, config):
    """Holds the values of a Model Garden config to its annotations.

    Overrides are taken as they come: a section may have become a number.

    Args:
        prefix: name of the config, for errors.
        config: the config, whose sections are checked too.

    Raises:
        ValueError: naming the first field whose value has another type.
    """
    if not isinstance(config, hyperparams.Config):
        raise ValueError(
            f"{prefix} must be a section of fields; got {config!r}."
        )
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        name, value = f"{prefix}.{field.name}", getattr(config, field.name)
        kinds = typing.get_args(hints[field.name]) or (hints[field.name],)
        if value is None and type(None) in kinds:
            continue
        sections = [
            kind
            for kind in kinds
            if isinstance(kind, type) and issubclass(kind, hyperparams.Config)
        ]
        if sections:
            check_types(name, value)
        elif bool in kinds and len(kinds) <= 2:
            if not isinstance(value, bool):
                raise ValueError(
                    f"{name} must be true or false; got {value!r}."
                )
        elif float in kinds and str not in kinds:
            _number(name, value, above=float("-inf"))
        elif int in kinds and len(kinds) <= 2:
            _integer(name, value, minimum=-(2**63))
        elif str in kinds and len(kinds) <= 2 and not isinstance(value, str):
            raise ValueError(f"{name} must be a string; got {value!r}.")


def _lanes(prefix, config) -> LanesSettings:
    return LanesSettings(
        split=_string(f"{prefix}.split", config.split),
        num_lanes=_integer(
            f"{prefix}.global_batch_size", config.global_batch_size, minimum=1
        ),
        segment_length=_integer(
            f"{prefix}.segment_length", config.segment_length, minimum=1
        ),
    )


def _string(name, value) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be a non-empty string; got {value!r}.")
    return value


def _path(name, value) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        value = ",".join(value)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a path; got {value!r}.")
    return value


def _integer(name, value, minimum=0) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be an integer; got {value!r}.")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}; got {value}.")
    return value


def _number(name, value, above=None) -> float:
    # YAML reads 1e-8 without a point as a string.
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = repr(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number; got {value!r}.")
    if above is None and value < 0:
        raise ValueError(f"{name} must not be negative; got {value}.")
    if above is not None and not value > above:
        raise ValueError(f"{name} must be above {above}; got {value}.")
    return float(value)
