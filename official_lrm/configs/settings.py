"""Model Garden configs in, validated and frozen plain objects out."""

import dataclasses
import os
import types
from collections.abc import Mapping

from official_lrm.configs.checks import (
    check_types,
    integer,
    integers,
    number,
    path,
    refuse_ignored,
    string,
)
from official_lrm.data import TOKENIZER_TYPES
from official_lrm.data.lane_service import split_address
from official_lrm.memory.spans import MemorySpans

#: `runtime.mixed_precision_dtype` -> Keras dtype policy.
DTYPE_POLICIES = {
    None: "float32",
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float64": "float64",
}

STRATEGIES = ("one_device", "mirrored", "multi_worker_mirrored", "tpu")


@dataclasses.dataclass(frozen=True)
class LanesSettings:
    """How a split is cut: B lanes of segments of T tokens.

    Attributes:
        split: name of the split.
        num_lanes: B.
        segment_length: T.
        max_tokens: targets at most, or None.
    """

    split: str
    num_lanes: int
    segment_length: int
    max_tokens: int | None


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
        tokenizer: one of TOKENIZER_TYPES.
        train: lanes of training.
        validation: lanes of evaluation.
        optimizer: the optimizer.
        dtype_policy: name of the Keras dtype policy.
        seed: of initial weights and dropout.
        train_steps: steps of the whole run.
        gradient_accumulation_steps: groups that the lanes of a replica are
            worked through in.
    """

    model: Mapping
    corpus: str
    input_path: str
    tokenizer: str
    train: LanesSettings
    validation: LanesSettings
    optimizer: OptimizerSettings
    dtype_policy: str
    seed: int
    train_steps: int
    gradient_accumulation_steps: int

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
    refuse_ignored(task, trainer, runtime)
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
    workers = runtime.worker_hosts or runtime.task_index != -1
    if workers and runtime.distribution_strategy != "multi_worker_mirrored":
        raise ValueError(
            "runtime.worker_hosts and runtime.task_index need "
            "runtime.distribution_strategy=multi_worker_mirrored; got "
            f"{runtime.distribution_strategy!r}."
        )
    if task.corpus.tokenizer not in TOKENIZER_TYPES:
        raise ValueError(
            f"task.corpus.tokenizer must be one of "
            f"{', '.join(TOKENIZER_TYPES)}; got {task.corpus.tokenizer!r}."
        )
    if task.corpus.skip_newlines and task.corpus.tokenizer != "symbols":
        raise ValueError(
            "task.corpus.skip_newlines is for task.corpus.tokenizer=symbols; "
            f"got {task.corpus.tokenizer!r}."
        )
    if task.corpus.vocabulary and task.corpus.tokenizer != "words":
        raise ValueError(
            "task.corpus.vocabulary is for task.corpus.tokenizer=words; got "
            f"{task.corpus.tokenizer!r}."
        )
    for name in ("train_data", "validation_data"):
        _check_service(f"task.{name}", getattr(task, name), task.corpus)
    for name in (
        "steps_per_loop",
        "summary_interval",
        "checkpoint_interval",
        "validation_interval",
        "max_to_keep",
        "gradient_accumulation_steps",
    ):
        integer(f"trainer.{name}", getattr(trainer, name), minimum=1)
    patience = integer(
        "trainer.early_stopping_patience", trainer.early_stopping_patience
    )
    if trainer.checkpoint_disk_budget_gb is not None:
        number(
            "trainer.checkpoint_disk_budget_gb",
            trainer.checkpoint_disk_budget_gb,
            above=0,
        )
    subdir = trainer.best_checkpoint_export_subdir
    # A run's other folders are "preset" and those of its summaries.
    taken = (".", "..", "preset", "train", trainer.validation_summary_subdir)
    if subdir != os.path.basename(subdir) or subdir in taken:
        raise ValueError(
            "trainer.best_checkpoint_export_subdir must be the name of a "
            f"folder of its own; got {subdir!r}."
        )
    if patience and not subdir:
        raise ValueError(
            "trainer.early_stopping_patience needs "
            "trainer.best_checkpoint_export_subdir, which keeps the best "
            f"weights; got patience {patience} and no folder."
        )
    train_steps = integer("trainer.train_steps", trainer.train_steps)
    validation_steps = trainer.validation_steps
    if validation_steps != -1:
        integer("trainer.validation_steps", validation_steps, minimum=1)
    if trainer.summary_interval % trainer.steps_per_loop:
        raise ValueError(
            "trainer.summary_interval must be a multiple of "
            f"trainer.steps_per_loop={trainer.steps_per_loop}; got "
            f"{trainer.summary_interval}."
        )
    return RunSettings(
        model=types.MappingProxyType(model_arguments(task.model)),
        corpus=string("task.corpus.name", task.corpus.name),
        input_path=path("task.corpus.input_path", task.corpus.input_path),
        tokenizer=task.corpus.tokenizer,
        train=_lanes("task.train_data", task.train_data),
        validation=_lanes("task.validation_data", task.validation_data),
        optimizer=optimizer_settings(trainer.optimizer_config, train_steps),
        dtype_policy=DTYPE_POLICIES[runtime.mixed_precision_dtype],
        seed=integer("task.seed", task.seed),
        train_steps=train_steps,
        gradient_accumulation_steps=trainer.gradient_accumulation_steps,
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
    # How a model is trained, nothing that it is.
    rematerialize = arguments.pop("rematerialize")
    if not isinstance(rematerialize, bool) and rematerialize != "long":
        raise ValueError(
            "task.model.rematerialize must be true, false or long; got "
            f"{rematerialize!r}."
        )
    num_layers = integer(
        "task.model.num_layers", arguments.pop("num_layers"), minimum=1
    )
    arguments["spans"] = _spans(arguments["spans"], num_layers)
    arguments["cutoffs"] = tuple(
        integers("task.model.cutoffs", arguments["cutoffs"])
    )
    for name in (
        "dropout",
        "attention_dropout",
        "layer_norm_epsilon",
        "initializer_stddev",
        "projection_initializer_stddev",
    ):
        arguments[name] = number(
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
    offset = integer(f"{name}.offset", cosine.offset)
    decay_steps = cosine.decay_steps
    if decay_steps is None:
        decay_steps = max(1, train_steps - offset)
    clip_norm = adam.global_clipnorm
    if clip_norm is not None:
        clip_norm = number(
            f"{prefix}.optimizer.adam.global_clipnorm", clip_norm, above=0
        )
    return OptimizerSettings(
        learning_rate=number(
            f"{name}.initial_learning_rate", cosine.initial_learning_rate
        ),
        warmup_steps=integer(
            f"{prefix}.warmup.linear.warmup_steps", warmup.warmup_steps
        ),
        warmup_learning_rate=number(
            f"{prefix}.warmup.linear.warmup_learning_rate",
            warmup.warmup_learning_rate,
        ),
        decay_steps=integer(f"{name}.decay_steps", decay_steps, minimum=1),
        offset=offset,
        alpha=number(f"{name}.alpha", cosine.alpha),
        beta_1=number(f"{prefix}.optimizer.adam.beta_1", adam.beta_1),
        beta_2=number(f"{prefix}.optimizer.adam.beta_2", adam.beta_2),
        epsilon=number(
            f"{prefix}.optimizer.adam.epsilon", adam.epsilon, above=0
        ),
        clip_norm=clip_norm,
    )


def _check_service(prefix, config, corpus):
    # Nothing that a run's numbers depend on, so no part of its settings.
    address = config.tf_data_service_address
    if not address:
        return
    try:
        split_address(address)
    except ValueError as error:
        raise ValueError(f"{prefix}.tf_data_service_address: {error}") from None
    if not corpus.shard_dir:
        raise ValueError(
            f"{prefix}.tf_data_service_address needs task.corpus.shard_dir, a "
            "folder that the service's worker reads the tokens from; got none."
        )


def _lanes(prefix, config) -> LanesSettings:
    return LanesSettings(
        split=string(f"{prefix}.split", config.split),
        num_lanes=integer(
            f"{prefix}.global_batch_size", config.global_batch_size, minimum=1
        ),
        segment_length=integer(
            f"{prefix}.segment_length", config.segment_length, minimum=1
        ),
        max_tokens=None
        if config.max_tokens is None
        else integer(f"{prefix}.max_tokens", config.max_tokens, minimum=1),
    )
