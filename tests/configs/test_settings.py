"""Model Garden configs are checked when they become settings."""

import dataclasses
import pathlib

import pytest
import yaml
from official.core import exp_factory

from official_lrm.configs import EXPERIMENTS, resolve
from official_lrm.memory import MemorySpans
from official_lrm.training import parse_params

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_resolves(name):
    settings = resolve(exp_factory.get_exp_config(name))

    assert settings.optimizer.alpha == 0.01
    assert settings.optimizer.epsilon == 1e-8
    assert settings.optimizer.clip_norm == 0.25
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.seed = 3


def test_enwik8_is_the_papers_set_up():
    settings = resolve(exp_factory.get_exp_config("lrm_enwik8"))

    assert settings.spans == MemorySpans.arrange(24, 4, "interleaved")
    assert settings.model["hidden_size"] == 1024
    assert settings.model["dropout"] == 0.15
    assert settings.train.num_lanes == 32
    assert settings.train.segment_length == 384
    assert settings.optimizer.warmup_steps == settings.optimizer.offset == 4000
    assert settings.optimizer.decay_steps == 396_000
    assert settings.optimizer.learning_rate == 2.5e-4


@pytest.mark.parametrize(
    ("experiment", "file"),
    [
        ("lrm_quickstart", "quickstart.yaml"),
        ("lrm_enwik8", "enwik8/lrm04_interleaved.yaml"),
    ],
)
def test_experiment_and_its_file_say_the_same(experiment, file):
    """One may be run without the other; they must not drift apart."""
    alone = parse_params(experiment)
    with_file = parse_params(experiment, config_files=[str(CONFIGS / file)])

    assert alone.as_dict() == with_file.as_dict()


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=str)
def test_every_file_resolves_and_says_how_to_run_it(path):
    text = path.read_text()
    experiment = "lrm_quickstart" if path.stem == "quickstart" else "lrm_enwik8"

    settings = resolve(parse_params(experiment, config_files=[str(path)]))

    header = text.split("\ntask:")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    for word in ("Run:", "Required:", "Commonly overridden:"):
        assert word in header
    assert f"--experiment={experiment}" in header
    assert path.relative_to(CONFIGS.parent).as_posix() in header
    optimizer = yaml.safe_load(text)["trainer"]["optimizer_config"]
    # Model Garden's own defaults differ from the published values.
    assert optimizer["learning_rate"]["cosine"]["alpha"] == 0.01
    assert optimizer["optimizer"]["adam"]["epsilon"] == 1e-8
    assert settings.optimizer.offset == settings.optimizer.warmup_steps


def test_spans_given_as_lengths_decide_alone():
    params = parse_params(
        "lrm_quickstart",
        params_override=(
            "task: {model: {num_layers: 3, spans: {lengths: [0, 7, 7], "
            "is_long: [false, true, false]}}}"
        ),
    )

    spans = resolve(params).spans

    assert spans.lengths == (0, 7, 7)
    assert spans.is_long == (False, True, False)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("task.model.spans.placement=top", ["placement", "top", "middle"]),
        ("task.model.spans.num_long=7", ["num_long", "7", "6"]),
        ("task.model.num_layers=0", ["num_layers", "0", "at least 1"]),
        (
            "task: {model: {spans: {lengths: [1, 2]}}}",
            ["lengths", "num_layers=6", "[1, 2]"],
        ),
        ("task.train_data.global_batch_size=0", ["global_batch_size", "0"]),
        ("task.seed=x", ["task.seed", "'x'", "integer"]),
        ("task.nonsense=1", ["params_override", "nonsense"]),
        (
            "runtime.mixed_precision_dtype=float16",
            ["mixed_precision_dtype", "float16", "bfloat16"],
        ),
        (
            "runtime.distribution_strategy=parameter_server",
            ["distribution_strategy", "parameter_server", "one_device"],
        ),
        ("runtime.enable_xla=true", ["runtime.enable_xla", "True"]),
        ("task.model=5", ["task.model", "section", "5"]),
        ("trainer=x", ["trainer", "section", "'x'"]),
        ("task.model.hidden_size=abc", ["hidden_size", "'abc'", "integer"]),
        ("task.model.hidden_size=15", ["hidden_size", "even", "15"]),
        ("task.model.dropout=1.5", ["task.model.dropout", "1.5", "below 1"]),
        ("task.model.untie_biases=3", ["untie_biases", "true or false", "3"]),
        ("trainer.recovery_max_trials=2", ["recovery_max_trials", "0", "2"]),
        (
            "trainer.best_checkpoint_export_subdir=x",
            ["best_checkpoint_export_subdir", "'x'"],
        ),
        ("trainer.continuous_eval_timeout=a", ["eval_timeout", "'a'"]),
        ("runtime.tpu=foo", ["runtime.tpu", "foo", "distribution_strategy"]),
        (
            "runtime.distribution_strategy=multi_worker_mirrored",
            ["multi_worker_mirrored", "one_device, mirrored, tpu"],
        ),
        ("trainer.steps_per_loop=0", ["steps_per_loop", "0", "at least 1"]),
        ("trainer.summary_interval=30", ["summary_interval", "30", "25"]),
        (
            "trainer: {optimizer_config: {optimizer: {type: sgd}}}",
            ["optimizer.type", "sgd", "adam"],
        ),
        (
            "trainer: {optimizer_config: {optimizer: {adam: {clipnorm: 1.0}}}}",
            ["clipnorm", "global_clipnorm", "1.0"],
        ),
        (
            "trainer: {optimizer_config: {optimizer: {adam: "
            "{global_clipnorm: 0.0}}}}",
            ["global_clipnorm", "above 0", "0.0"],
        ),
        (
            "trainer: {optimizer_config: {ema: {average_decay: 0.9}}}",
            ["ema", "not supported"],
        ),
        (
            "trainer: {optimizer_config: {learning_rate: {cosine: "
            "{initial_learning_rate: fast}}}}",
            ["initial_learning_rate", "fast", "number"],
        ),
        (
            "trainer: {optimizer_config: {learning_rate: {cosine: "
            "{initial_learning_rate: .nan}}}}",
            ["initial_learning_rate", "nan", "finite"],
        ),
    ],
)
def test_errors_name_field_value_and_what_is_allowed(override, words):
    with pytest.raises(ValueError) as error:
        parse_params("lrm_quickstart", params_override=override)

    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_unknown_experiment_and_missing_file():
    with pytest.raises(ValueError, match="lrm_quickstart, lrm_enwik8; got"):
        parse_params("lrm_quickstar")
    with pytest.raises(FileNotFoundError, match=r"missing\.yaml"):
        parse_params("lrm_quickstart", config_files=["missing.yaml"])
