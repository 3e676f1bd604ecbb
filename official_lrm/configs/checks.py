"""Checks of Model Garden configs, whose overrides are taken as they come."""

import contextlib
import dataclasses
import math
import typing

from official.modeling import hyperparams

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
        "best_checkpoint_export_subdir",
        "early_stopping_patience",
        "checkpoint_disk_budget_gb",
        "gradient_accumulation_steps",
    },
    "runtime": {
        "distribution_strategy",
        "tpu",
        "num_gpus",
        "worker_hosts",
        "task_index",
        "all_reduce_alg",
        "num_packs",
        "mixed_precision_dtype",
    },
}

# Model Garden's own default would add to what a checkpoint holds.
_REQUIRED = {"trainer.preemption_on_demand_checkpoint": False}


def refuse_ignored(task, trainer, runtime):
    """Refuses fields that a run does not depend on, unless at their default.

    Args:
        task: LanguageModelingConfig.
        trainer: TrainerConfig.
        runtime: RuntimeConfig.

    Raises:
        ValueError: naming the first such field and its value.
    """
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
        hint = hints[field.name]
        # `list[int]` has arguments too, but is one kind.
        kinds = (hint,) if typing.get_origin(hint) is list else ()
        kinds = kinds or typing.get_args(hint) or (hint,)
        if value is None and type(None) in kinds:
            continue
        if {bool, str} <= set(kinds):  # Names beside yes and no: `resolve`'s.
            continue
        sections = [
            kind
            for kind in kinds
            if isinstance(kind, type) and issubclass(kind, hyperparams.Config)
        ]
        if sections:
            check_types(name, value)
        elif list[int] in kinds:
            integers(name, value)
        elif bool in kinds and len(kinds) <= 2:
            if not isinstance(value, bool):
                raise ValueError(
                    f"{name} must be true or false; got {value!r}."
                )
        elif float in kinds and str not in kinds:
            number(name, value, above=float("-inf"))
        elif int in kinds and len(kinds) <= 2:
            integer(name, value, minimum=-(2**63))
        elif str in kinds and len(kinds) <= 2 and not isinstance(value, str):
            raise ValueError(f"{name} must be a string; got {value!r}.")


def string(name, value) -> str:
    """Returns a non-empty string or raises ValueError with `name`."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be a non-empty string; got {value!r}.")
    return value


def path(name, value) -> str:
    """Returns a path, several joined by commas, "" for none, or raises."""
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        value = ",".join(value)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a path; got {value!r}.")
    return value


def integer(name, value, minimum=0) -> int:
    """Returns an integer from `minimum` on or raises ValueError with `name`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be an integer; got {value!r}.")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}; got {value}.")
    return value


def integers(name, value) -> list[int]:
    """Returns a list of integers or raises ValueError with `name`."""
    if not isinstance(value, (list, tuple)) or not all(
        isinstance(item, int) and not isinstance(item, bool) for item in value
    ):
        raise ValueError(f"{name} must be a list of integers; got {value!r}.")
    return list(value)


def number(name, value, above=None) -> float:
    """Returns a float or raises ValueError with `name`.

    Args:
        name: of the field.
        value: a number or its text.
        above: the bound that it must exceed; None = it may be 0, not negative.
    """
    given = value
    if isinstance(value, str):  # YAML reads 1e-8, without a point, as text.
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number; got {given!r}.")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite; got {given!r}.")
    if above is None and value < 0:
        raise ValueError(f"{name} must not be negative; got {value}.")
    if above is not None and not value > above:
        raise ValueError(f"{name} must be above {above}; got {value}.")
    return float(value)
