"""Configs of experiments: from flags, to files and back."""

import os

import tensorflow as tf
import yaml
from official.core import config_definitions as cfg
from official.core import exp_factory, train_utils

from official_lrm.configs import EXPERIMENTS
from official_lrm.configs.language_modeling import (
    LanguageModelingConfig,
    LanguageModelTrainerConfig,
)
from official_lrm.configs.settings import resolve
from official_lrm.models.arguments import check_arguments
from official_lrm.models.parameter_count import count_parameters
from official_lrm.models.presets import CONFIG_FILE
from official_lrm.training.run_files import write_file

PARAMS_FILE = "params.yaml"


def parse_params(
    experiment,
    config_files=(),
    params_override=None,
    tpu=None,
    init_from=None,
):
    """Builds a config as Model Garden does, and checks it.

    Args:
        experiment: name of a registered experiment.
        config_files: YAML files, later ones override earlier ones.
        params_override: YAML or `a.b=1,c.d=2`, overrides the files.
        tpu: TPU address or None.
        init_from: preset folder to start from or None.

    Returns:
        ExperimentConfig.

    Raises:
        ValueError: naming the experiment, file or field that is wrong.
        FileNotFoundError: if a config file is missing.
    """
    if experiment not in EXPERIMENTS:
        raise ValueError(
            f"experiment must be one of {', '.join(EXPERIMENTS)}; got "
            f"{experiment!r}."
        )
    params = exp_factory.get_exp_config(experiment)
    for path in config_files:
        if not os.path.isfile(path):
            raise FileNotFoundError(f"no config file at {path}.")
        _override(params, path, f"config file {path}")
    if params_override:
        _override(params, params_override, "params_override")
    if tpu is not None:
        params.runtime.tpu = tpu
    if init_from:
        params.task.init_checkpoint = init_from
    check_model(params)
    return params


def check_model(params):
    """Validates a config, the model's arguments included.

    Args:
        params: ExperimentConfig.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """
    arguments = dict(resolve(params).model)
    for name in ("spans", "same_length", "attend_to_empty"):
        del arguments[name]
    try:
        check_arguments(**arguments)
    except ValueError as error:
        raise ValueError(f"task.model.{error}") from None


def _override(params, source, what):
    try:
        train_utils.hyperparams.override_params_dict(
            params, source, is_strict=True
        )
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        yaml.YAMLError,
    ) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        reason = " ".join(str(text).split())
        raise ValueError(f"{what} cannot be applied: {reason}") from None


def sizes(params):
    """Memory spans, hidden size and number of parameters of a config.

    Args:
        params: ExperimentConfig.

    Returns:
        (MemorySpans, D, parameters).
    """
    model = resolve(params).model
    spans = model["spans"]
    parameters = count_parameters(len(spans), **model)
    return spans, model["hidden_size"], parameters


def describe(params) -> str:
    """Tells in a few lines what a config trains."""
    settings = resolve(params)
    spans, hidden_size, parameters = sizes(params)
    train, optimizer = settings.train, settings.optimizer
    tokens = train.num_lanes * train.segment_length
    state = spans.state_bytes(hidden_size, train.num_lanes) / 2**20
    corpus = f"{settings.corpus} {settings.input_path}".strip()
    return "\n".join(
        [
            spans.diagram(),
            f"model:  {len(spans)} layers, {parameters:,} parameters, "
            f"{settings.dtype_policy}",
            f"memory: {state:,.1f} MiB (float32) for {train.num_lanes} lanes",
            f"corpus: {corpus}",
            f"train:  {settings.train_steps:,} steps of {train.num_lanes} x "
            f"{train.segment_length} = {tokens:,} tokens, peak learning rate "
            f"{optimizer.learning_rate:g}, "
            f"{params.runtime.distribution_strategy}",
        ]
    )


def write_params(params, model_dir):
    """Writes the whole config as `params.yaml`.

    Args:
        params: ExperimentConfig.
        model_dir: the folder; made if missing.

    Raises:
        ValueError: if the folder cannot be written.
    """
    text = yaml.safe_dump(params.as_dict())
    write_file(model_dir, PARAMS_FILE, text)


def read_params(model_dir):
    """Reads the `params.yaml` of a model_dir.

    Args:
        model_dir: a folder that `run_experiment` trained in.

    Returns:
        ExperimentConfig.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged.
    """
    path = os.path.join(model_dir, PARAMS_FILE)
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(
            f"{model_dir} is neither a model_dir (with {PARAMS_FILE} and "
            f"checkpoints) nor a preset (with {CONFIG_FILE})."
        )
    params = cfg.ExperimentConfig(
        task=LanguageModelingConfig(), trainer=LanguageModelTrainerConfig()
    )
    try:
        with tf.io.gfile.GFile(path) as stream:
            params.override(yaml.safe_load(stream.read()), is_strict=True)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read: {reason}") from None
    return params
