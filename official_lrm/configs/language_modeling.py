"""Configurations of language modelling, and the registered experiments.

These are Model Garden dataclasses: mutable, overridable from YAML and flags,
checked by nobody. `settings.resolve` turns them into validated, frozen ones.
"""

import dataclasses

from official.core import config_definitions as cfg
from official.core import exp_factory
from official.modeling import hyperparams, optimization

#: Names of the experiments registered below.
EXPERIMENTS = (
    "lrm_quickstart",
    "lrm_enwik8",
    "lrm_text8",
    "lrm_wikitext2",
    "lrm_wikitext103",
)


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
    """Arguments of TransformerXLLanguageModel, see there, and one more.

    Attributes:
        rematerialize: layers whose activations training computes again in the
            backward pass instead of holding them, for the same numbers in less
            memory and more time: true = all, long = those with a long memory,
            false = none.
    """

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
    rematerialize: bool | str = False


@dataclasses.dataclass
class CorpusConfig(hyperparams.Config):
    """What text to model.

    Attributes:
        name: "python_stdlib" (the interpreter's own library sources), "text"
            (any files), or a TensorFlow dataset: "enwik8", "text8",
            "wikitext2", "wikitext103", "books".
        input_path: for "text" a file, a glob, or several separated by commas,
            also .xz and .gz; for a TensorFlow dataset the folder of what was
            downloaded by hand, "" to download.
        tokenizer: "bytes" (an id is the byte's value), "symbols" (only the
            byte values that occur), "words" or "sentencepiece", the last two
            learnt from the split trained on (pieces from its first 16 MiB).
        vocabulary: a file with one word a line in the order of the ids,
            instead of learning words.
        skip_newlines: with "symbols": newlines are no tokens, as in the
            published models of enwik8, which have 204.
        cache_dir: where the ids are kept, tokenized once; "" = the user's
            cache folder.
        shard_dir: a folder, also gs://, that every host and every worker of
            a tf.data service sees under this name; the ids are written there
            in shards, of which each reads its lanes'. "" = each process reads
            the cache.
    """

    name: str = "python_stdlib"
    input_path: str = ""
    tokenizer: str = "bytes"
    vocabulary: str = ""
    skip_newlines: bool = False
    cache_dir: str = ""
    shard_dir: str = ""


@dataclasses.dataclass
class LanesConfig(hyperparams.Config):
    """How a split of the corpus is cut.

    Attributes:
        split: "train", "validation", "test" or "all".
        global_batch_size: B, lanes over all replicas.
        segment_length: T, tokens of a lane in one step.
        max_tokens: targets at most, the first of the split; None = all.
        tf_data_service_address: grpc://host:port of the dispatcher of a
            tf.data service, whose one worker reads the lanes; needs
            `corpus.shard_dir`. "" = each host reads its own.
    """

    split: str = "train"
    global_batch_size: int = 32
    segment_length: int = 384
    max_tokens: int | None = None
    tf_data_service_address: str = ""


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


@dataclasses.dataclass
class LanguageModelTrainerConfig(cfg.TrainerConfig):
    """Model Garden's, with another meaning of the best checkpoint.

    Attributes:
        best_checkpoint_export_subdir: folder in the model_dir for a preset of
            the weights with the least validation loss; "" = keep none. It is
            the loss that is compared, so `best_checkpoint_eval_metric` and
            `best_checkpoint_metric_comp` are left alone.
        early_stopping_patience: evaluations in a row without a less
            validation loss, after which training stops; 0 = never.
        checkpoint_disk_budget_gb: gigabytes (1e9 bytes) that the checkpoints
            may take between two saves, beside `max_to_keep`: older ones are
            removed, the newest never; None = no bound. While one is written
            it comes on top.
        gradient_accumulation_steps: groups that the lanes of a replica are
            worked through in, one after the other, for one update of the
            weights: less memory, more time, the same numbers without dropout.
    """

    best_checkpoint_export_subdir: str = "best"
    early_stopping_patience: int = 0
    checkpoint_disk_budget_gb: float | None = None
    gradient_accumulation_steps: int = 1


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
        trainer=LanguageModelTrainerConfig(**trainer),
        runtime=cfg.RuntimeConfig(**runtime),
    )


def _small(task, learning_rate, validation_steps):
    # Minutes on two cores.
    trainer = {
        "train_steps": 2000,
        "steps_per_loop": 25,
        "summary_interval": 25,
        "checkpoint_interval": 500,
        "validation_interval": 500,
        "validation_steps": validation_steps,
        "max_to_keep": 2,
    }
    optimizer = {
        "learning_rate": learning_rate,
        "warmup_steps": 100,
        "alpha": 0.01,
        "clip_norm": 0.25,
    }
    return _experiment(task, trainer, optimizer)


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
    return _small(task, learning_rate=1.5e-3, validation_steps=40)


def _published(model, corpus, train_steps, warmup_steps, max_tokens=None):
    # Batch and segment: Rae & Razavi (2020), section 3.2; the schedule: Dai
    # et al. (2019).
    task = LanguageModelingConfig(
        model=model,
        corpus=corpus,
        train_data=LanesConfig(global_batch_size=32, segment_length=384),
        validation_data=LanesConfig(
            split="validation",
            global_batch_size=32,
            segment_length=384,
            max_tokens=max_tokens,
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

    The same run as configs/enwik8/lrm04_interleaved.yaml, which says more.
    Sources: Rae & Razavi (2020), sections 3.1 and 3.2; model and
    schedule: Dai et al. (2019).
    """
    return _published(
        LanguageModelConfig(
            vocab_size=204,
            dropout=0.15,
            attention_dropout=0.15,
            spans=SpansConfig(num_long=4),
        ),
        CorpusConfig(name="enwik8", tokenizer="symbols", skip_newlines=True),
        train_steps=400_000,
        warmup_steps=4000,
        max_tokens=500_000,
    )


@exp_factory.register_config_factory("lrm_text8")
def lrm_text8() -> cfg.ExperimentConfig:
    """The 24-layer model on text8, a long memory in every layer.

    The same run as configs/text8/lrm24.yaml, which says more.
    """
    return _published(
        LanguageModelConfig(
            vocab_size=27,
            dropout=0.15,
            attention_dropout=0.15,
            spans=SpansConfig(num_long=24),
        ),
        CorpusConfig(name="text8", tokenizer="symbols"),
        train_steps=400_000,
        warmup_steps=4000,
    )


@exp_factory.register_config_factory("lrm_wikitext103")
def lrm_wikitext103() -> cfg.ExperimentConfig:
    """The paper's 18-layer WikiText-103 model, 3 interleaved long memories.

    The same run as configs/wikitext103/lrm03_interleaved.yaml, which says
    more. Sources: Rae & Razavi (2020), section 4; model and schedule: Dai
    et al. (2019).
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
        CorpusConfig(name="wikitext103", tokenizer="words"),
        train_steps=4_000_000,
        warmup_steps=16_000,
    )


@exp_factory.register_config_factory("lrm_wikitext2")
def lrm_wikitext2() -> cfg.ExperimentConfig:
    """A small model of the words of WikiText-2, in minutes on two cores.

    The same run as configs/wikitext2/words_6l.yaml.
    """
    task = LanguageModelingConfig(
        model=LanguageModelConfig(
            vocab_size=33_278,
            num_layers=6,
            hidden_size=192,
            num_heads=4,
            head_size=48,
            inner_size=768,
            dropout=0.1,
            cutoffs=[2000, 10_000],
            div_value=2,
            projection_initializer_stddev=0.02,
            spans=SpansConfig(num_long=1, long=256, short=32),
        ),
        corpus=CorpusConfig(name="wikitext2", tokenizer="words"),
        train_data=LanesConfig(global_batch_size=16, segment_length=64),
        validation_data=LanesConfig(
            split="validation",
            global_batch_size=16,
            segment_length=64,
            max_tokens=50_000,
        ),
    )
    return _small(task, learning_rate=1e-3, validation_steps=-1)
