"""Model Garden configs are checked when they become settings."""

import dataclasses
import inspect
import pathlib

import pytest
from official.core import exp_factory

import official_lrm as lrm
from official_lrm.configs import EXPERIMENTS, resolve
from official_lrm.training import parse_params

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"

_ADAPTIVE = (
    "cutoffs",
    "div_value",
    "embedding_size",
    "tie_embeddings",
    "share_projections",
    "projection_initializer_stddev",
)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_resolves(name):
    settings = resolve(exp_factory.get_exp_config(name))

    assert settings.optimizer.alpha == 0.01
    assert settings.optimizer.epsilon == 1e-8
    assert settings.optimizer.clip_norm == 0.25
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.seed = 3


@pytest.mark.parametrize(
    ("experiment", "file"),
    [
        ("lrm_quickstart", "quickstart.yaml"),
        ("lrm_enwik8", "enwik8/lrm04_interleaved.yaml"),
        ("lrm_text8", "text8/lrm24.yaml"),
        ("lrm_wikitext103", "wikitext103/lrm03_interleaved.yaml"),
        ("lrm_wikitext2", "wikitext2/words_6l.yaml"),
    ],
)
def test_experiment_and_its_file_say_the_same(experiment, file):
    """One may be run without the other; they must not drift apart."""
    alone = parse_params(experiment)
    with_file = parse_params(experiment, config_files=[str(CONFIGS / file)])

    assert alone.as_dict() == with_file.as_dict()


def test_arguments_of_the_adaptive_softmax():
    params = parse_params(
        "lrm_quickstart",
        params_override=(
            "task.model.cutoffs=[64,160],task.model.div_value=2,"
            "task.model.embedding_size=96,task.model.tie_embeddings=false,"
            "task.model.share_projections=false,"
            "task.model.projection_initializer_stddev=1e-3"
        ),
    )

    model = resolve(params).model

    assert model["cutoffs"] == (64, 160)
    assert model["div_value"] == 2
    assert model["embedding_size"] == 96
    assert model["tie_embeddings"] is False
    assert model["share_projections"] is False
    assert model["projection_initializer_stddev"] == 0.001
    plain = resolve(exp_factory.get_exp_config("lrm_quickstart")).model
    assert plain["cutoffs"] == ()
    # Every argument of the model is a field, but for how memories are kept,
    # which is an export's choice: training keeps hidden states.
    signature = inspect.signature(lrm.TransformerXLLanguageModel)
    assert set(plain) == set(signature.parameters) - {
        "_shared_layers",
        "kwargs",
        "memory_format",
        "memory_dtype",
    }
    assert (
        plain.items()
        >= {
            name: parameter.default
            for name, parameter in signature.parameters.items()
            if name in _ADAPTIVE
        }.items()
    )


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
        ("task.model.cutoffs=7", ["task.model.cutoffs", "list", "got 7"]),
        (
            "task: {model: {cutoffs: [64, 2.5]}}",
            ["task.model.cutoffs", "integers", "[64, 2.5]"],
        ),
        (
            "task: {model: {cutoffs: [64, true]}}",
            ["task.model.cutoffs", "integers", "[64, True]"],
        ),
        (
            "task: {model: {cutoffs: [64, 64]}}",
            ["task.model.cutoffs", "rise", "vocab_size=256", "[64, 64]"],
        ),
        (
            "task: {model: {cutoffs: [256]}}",
            ["task.model.cutoffs", "vocab_size=256", "[256]"],
        ),
        ("task.model.div_value=0", ["task.model.div_value", "positive", "0"]),
        ("task.model.div_value=1.5", ["task.model.div_value", "1.5"]),
        (
            "task: {model: {cutoffs: [64, 160], div_value: 14}}",
            ["task.model.embedding_size", "196", "got 192"],
        ),
        (
            "task.model.embedding_size=0",
            ["task.model.embedding_size", "positive integer or None", "0"],
        ),
        (
            "task.model.embedding_size=wide",
            ["task.model.embedding_size", "integer", "'wide'"],
        ),
        (
            "task.model.tie_embeddings=1",
            ["task.model.tie_embeddings", "true or false", "1"],
        ),
        (
            "task.model.share_projections=no_idea",
            ["task.model.share_projections", "true or false", "'no_idea'"],
        ),
        (
            "task.model.projection_initializer_stddev=0",
            ["task.model.projection_initializer_stddev", "positive", "0"],
        ),
        (
            "task.model.projection_initializer_stddev=wide",
            ["task.model.projection_initializer_stddev", "number", "'wide'"],
        ),
        ("task.model.untie_biases=3", ["untie_biases", "true or false", "3"]),
        ("trainer.recovery_max_trials=2", ["recovery_max_trials", "0", "2"]),
        (
            "trainer.best_checkpoint_eval_metric=x",
            ["best_checkpoint_eval_metric", "''", "'x'"],
        ),
        (
            "trainer.best_checkpoint_export_subdir=a/b",
            ["best_checkpoint_export_subdir", "name of a folder", "'a/b'"],
        ),
        (
            "trainer.best_checkpoint_export_subdir=preset",
            ["best_checkpoint_export_subdir", "of its own", "'preset'"],
        ),
        (
            "trainer: {best_checkpoint_export_subdir: '', "
            "early_stopping_patience: 3}",
            ["early_stopping_patience", "best_checkpoint_export_subdir", "3"],
        ),
        ("trainer.early_stopping_patience=-1", ["patience", "-1"]),
        (
            "trainer.checkpoint_disk_budget_gb=0",
            ["checkpoint_disk_budget_gb", "above 0", "0"],
        ),
        (
            "runtime.worker_hosts='a:1,b:2'",
            ["worker_hosts", "multi_worker_mirrored", "one_device"],
        ),
        (
            "runtime.task_index=1",
            ["task_index", "multi_worker_mirrored", "one_device"],
        ),
        (
            "task.corpus.skip_newlines=true",
            ["task.corpus.skip_newlines", "tokenizer=symbols", "'bytes'"],
        ),
        (
            "task.validation_data.max_tokens=0",
            ["task.validation_data.max_tokens", "0"],
        ),
        (
            "task.corpus.vocabulary=words.txt",
            ["task.corpus.vocabulary", "tokenizer=words", "'bytes'"],
        ),
        (
            "task.corpus.tokenizer=chars",
            ["bytes, symbols, words, sentencepiece", "'chars'"],
        ),
        ("trainer.continuous_eval_timeout=a", ["eval_timeout", "'a'"]),
        ("runtime.tpu=foo", ["runtime.tpu", "foo", "distribution_strategy"]),
        (
            "runtime.distribution_strategy=parameter_server",
            ["parameter_server", "one_device, mirrored, multi_worker_mirrored"],
        ),
        (
            "trainer.gradient_accumulation_steps=0",
            ["trainer.gradient_accumulation_steps", "at least 1", "0"],
        ),
        (
            "task.model.rematerialize=1",
            ["task.model.rematerialize", "true, false or long", "1"],
        ),
        (
            "task.model.rematerialize=short",
            ["task.model.rematerialize", "true, false or long", "'short'"],
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
    names = "lrm_quickstart, lrm_enwik8, lrm_text8, lrm_wikitext2, lrm_wikit"
    with pytest.raises(ValueError, match=names):
        parse_params("lrm_quickstar")
    with pytest.raises(FileNotFoundError, match=r"missing\.yaml"):
        parse_params("lrm_quickstart", config_files=["missing.yaml"])
