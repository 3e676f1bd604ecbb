"""Configurations of language modelling, and the registered experiments.

These are Model Garden dataclasses: mutable, overridable from YAML and flags,
checked by nobody. `settings.resolve` turns them into validated, frozen ones.
"""

import dataclasses

from official.core import config_definitions as cfg
from official.core import exp_factory
from official.modeling import hyperparams, optimization

#: Names of the experiments registered below.
EXPERIMENTS = ("lrm_quickstart", "lrm_enwik8", "lrm_text8", "lrm_wikitext103")


@dataclasses.dataclass
class SpansConfig(hyperparams.Config):
    """Memory length of each layer.

    Attributes:
        lengths: one length per layer; if given, it decides alone.
        is_long: one bool per layer of `lengths`; by default the layers of the
            greatest length are long.
        num_long: number of long-range memories, from 0 to the number of
            layers; None = every layer.
        placement: "interleaved", "first", "last" or "middle".
        long: span of the long layers.
        short: span of all others.
    """

    lengths: list[int] | None = None
    is_long: list[bool] | None = None
    num_long: int | None = None
    placement: str = "interleaved"
    long: int = 2304
    short: int = 128


@dataclasses.dataclass
class LanguageModelConfig(hyperparams.Config):
    """Arguments of TransformerXLLanguageModel, see there."""

    vocab_size: int = 256
    num_layers: int = 24
    hidden_size: int = 1024
    num_heads: int = 8
    head_size: int = 128
    inner_size: int = 3072
    dropout: float = 0.0
    attention_dropout: float = 0.0
    untie_biases: bool = False
    clamp_length: int | None = None
    same_length: bool = False
    attend_to_empty: bool = False
    cutoffs: list[int] = dataclasses.field(default_factory=list)
    div_value: int = 1
    embedding_size: int | None = None
    tie_embeddings: bool = True
    share_projections: bool = True
    layer_norm_epsilon: float = 1e-5
    initializer_stddev: float = 0.02
    projection_initializer_stddev: float = 0.01
    spans: SpansConfig = dataclasses.field(default_factory=SpansConfig)


@dataclasses.dataclass
class CorpusConfig(hyperparams.Config):
    """What text to model.

    Attributes:
        name: "python_stdlib" (the interpreter's own library sources) or
            "text" (any files).
        input_path: for "text": a file, a glob, or several separated by
            commas; also .xz and .gz.
        tokenizer: "bytes" (an id is the byte's value) or "symbols" (only the
            byte values that occur in the split trained on, the commonest
            first).
    """

    name: str = "python_stdlib"
    input_path: str = ""
    tokenizer: str = "bytes"


@dataclasses.dataclass
class LanesConfig(hyperparams.Config):
    """How a split of the corpus is cut.

    Attributes:
        split: "train", "validation", "test" or "all".
        global_batch_size: B, lanes over all replicas.
        segment_length: T, tokens of a lane in one step.
    """

    split: str = "train"
    global_batch_size: int = 32
    segment_length: int = 384


@dataclasses.dataclass
class LanguageModelingConfig(cfg.TaskConfig):
    """The language modelling task.

    Attributes:
        model: the model.
        corpus: the text.
        train_data: lanes of training.
        validation_data: lanes of evaluation.
        seed: of initial weights and of dropout.
        init_checkpoint: a preset folder to start from instead of random
            weights.
    """

    model: LanguageModelConfig = dataclasses.field(
        default_factory=LanguageModelConfig
    )
    corpus: CorpusConfig = dataclasses.field(default_factory=CorpusConfig)
    train_data: LanesConfig = dataclasses.field(default_factory=LanesConfig)
    validation_data: LanesConfig = dataclasses.field(
        default_factory=lambda: LanesConfig(split="validation")
    )
    seed: int = 0


def _experiment(task, trainer, optimizer, runtime=None):
    trainer["preemption_on_demand_checkpoint"] = False
    trainer["optimizer_config"] = optimization.OptimizationConfig(
        {
            "optimizer": {
                "type": "adam",
                "adam": {
                    "epsilon": 1e-8,  # TensorFlow 1's, as the reference had.
                    "global_clipnorm": optimizer["clip_norm"],
                },
            },
            "learning_rate": {
                "type": "cosine",
                "cosine": {
                    "initial_learning_rate": optimizer["learning_rate"],
                    "alpha": optimizer["alpha"],
                    # None: the cosine ends where training does.
                    "decay_steps": None,
                    "offset": optimizer["warmup_steps"],
                },
            },
            "warmup": {
                "type": "linear",
                "linear": {
                    "warmup_steps": optimizer["warmup_steps"],
                    "warmup_learning_rate": 0.0,
                },
            },
        }
    )
    runtime = {"distribution_strategy": "one_device", **(runtime or {})}
    return cfg.ExperimentConfig(
        task=task,
        trainer=cfg.TrainerConfig(**trainer),
        runtime=cfg.RuntimeConfig(**runtime),
    )


@exp_factory.register_config_factory("lrm_quickstart")
def lrm_quickstart() -> cfg.ExperimentConfig:
    """A model of the interpreter's own library, in minutes on two cores."""
    task = LanguageModelingConfig(
        model=LanguageModelConfig(
            num_layers=6,
            hidden_size=192,
            num_heads=4,
            head_size=48,
            inner_size=768,
            initializer_stddev=0.02,
            spans=SpansConfig(num_long=1, long=384, short=64),
        ),
        train_data=LanesConfig(global_batch_size=8, segment_length=128),
        validation_data=LanesConfig(
            split="validation", global_batch_size=8, segment_length=128
        ),
    )
    trainer = {
        "train_steps": 2000,
        "steps_per_loop": 25,
        "summary_interval": 25,
        "checkpoint_interval": 500,
        "validation_interval": 500,
        "validation_steps": 40,
        "max_to_keep": 2,
    }
    optimizer = {
        "learning_rate": 1.5e-3,
        "warmup_steps": 100,
        "alpha": 0.01,
        "clip_norm": 0.25,
    }
    return _experiment(task, trainer, optimizer)


def _published(model, corpus, train_steps, warmup_steps):
    # Batch and segment: Rae & Razavi (2020), section 3.2; the schedule: Dai
    # et al. (2019).
    task = LanguageModelingConfig(
        model=model,
        corpus=corpus,
        train_data=LanesConfig(global_batch_size=32, segment_length=384),
        validation_data=LanesConfig(
            split="validation", global_batch_size=32, segment_length=384
        ),
    )
    trainer = {
        "train_steps": train_steps,
        "steps_per_loop": 100,
        "summary_interval": 100,
        "checkpoint_interval": 4000,
        "validation_interval": 4000,
        "validation_steps": -1,
        "max_to_keep": 3,
    }
    optimizer = {
        "learning_rate": 2.5e-4,
        "warmup_steps": warmup_steps,
        "alpha": 0.01,
        "clip_norm": 0.25,
    }
    return _experiment(task, trainer, optimizer)


@exp_factory.register_config_factory("lrm_enwik8")
def lrm_enwik8() -> cfg.ExperimentConfig:
    """The paper's 24-layer enwik8 model with 4 interleaved long memories.

    Needs `task.corpus.input_path`; configs/enwik8/lrm04_interleaved.yaml says
    more. Sources: Rae & Razavi (2020), sections 3.1 and 3.2; model and
    schedule: Dai et al. (2019).
    """
    return _published(
        LanguageModelConfig(
            vocab_size=204,
            dropout=0.15,
            attention_dropout=0.15,
            spans=SpansConfig(num_long=4),
        ),
        CorpusConfig(name="text", tokenizer="symbols"),
        train_steps=400_000,
        warmup_steps=4000,
    )


@exp_factory.register_config_factory("lrm_text8")
def lrm_text8() -> cfg.ExperimentConfig:
    """The 24-layer model on text8, a long memory in every layer.

    Needs `task.corpus.input_path`. The same run as configs/text8/lrm24.yaml,
    which says more.
    """
    return _published(
        LanguageModelConfig(
            vocab_size=27,
            dropout=0.15,
            attention_dropout=0.15,
            spans=SpansConfig(num_long=24),
        ),
        CorpusConfig(name="text", tokenizer="symbols"),
        train_steps=400_000,
        warmup_steps=4000,
    )


@exp_factory.register_config_factory("lrm_wikitext103")
def lrm_wikitext103() -> cfg.ExperimentConfig:
    """The paper's 18-layer WikiText-103 model, 3 interleaved long memories.

    Its tokens are words, for which there is no tokenizer yet: to look at, to
    convert weights for, and to run shrunken (configs/local_tiny.yaml).
    Sources: Rae & Razavi (2020), section 4; model and schedule: Dai et al.
    (2019).
    """
    return _published(
        LanguageModelConfig(
            vocab_size=267_735,
            num_layers=18,
            num_heads=16,
            head_size=64,
            inner_size=4096,
            dropout=0.2,
            attention_dropout=0.2,
            untie_biases=True,
            cutoffs=[20_000, 40_000, 200_000],
            div_value=4,
            initializer_stddev=0.005,
            spans=SpansConfig(num_long=3),
        ),
        CorpusConfig(name="text"),
        train_steps=4_000_000,
        warmup_steps=16_000,
    )
