"""Every file of configs/ is the published run that its name says."""

import functools
import pathlib
import re

import numpy as np
import pytest
import yaml
from official.core import exp_factory

import official_lrm as lrm
from official_lrm.configs import EXPERIMENTS, OptimizerSettings, resolve
from official_lrm.training import params as experiment_params
from official_lrm.training import parse_params

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
TINY = CONFIGS / "local_tiny.yaml"

PUBLISHED = {
    "enwik8": {
        "lrm24": (24, "interleaved", 128),
        "lrm12_interleaved": (12, "interleaved", 128),
        "lrm12_first": (12, "first", 128),
        "lrm12_last": (12, "last", 128),
        "lrm04_interleaved": (4, "interleaved", 128),
        "lrm04_first": (4, "first", 128),
        "lrm04_last": (4, "last", 128),
        "lrm04_middle": (4, "middle", 128),
        "lrm01_first": (1, "first", 128),
        "lrm01_last": (1, "last", 128),
        "lrm00": (0, "interleaved", 128),
        "lrm04_interleaved_srm0032": (4, "interleaved", 32),
        "lrm04_interleaved_srm0064": (4, "interleaved", 64),
        "lrm04_interleaved_srm0256": (4, "interleaved", 256),
        "lrm04_interleaved_srm0512": (4, "interleaved", 512),
        "lrm04_interleaved_srm1024": (4, "interleaved", 1024),
        "lrm04_interleaved_srm2048": (4, "interleaved", 2048),
    },
    "wikitext103": {
        "lrm18": (18, "interleaved", 128),
        "lrm03_interleaved": (3, "interleaved", 128),
        "lrm03_first": (3, "first", 128),
        "lrm03_last": (3, "last", 128),
    },
    "text8": {"lrm24": (24, "interleaved", 128)},
}
PUBLISHED_RUNS = [
    pytest.param(
        CONFIGS / folder / f"{stem}.yaml", *spans, id=f"{folder}/{stem}"
    )
    for folder, runs in PUBLISHED.items()
    for stem, spans in runs.items()
]
OTHERS = [
    "quickstart.yaml",
    "enwik8/small_12l_lrm04.yaml",
    "text8/base_12l.yaml",
    "wikitext2/characters_6l.yaml",
    "wikitext2/words_6l.yaml",
]
FILES = sorted(path for path in CONFIGS.rglob("*.yaml") if path != TINY)

# What Rae & Razavi (2020) print, in sections 4 and 4.2 and table 1.
FIGURES = {
    "enwik8/lrm24": [
        "figure 3",
        "0.9846 bpc",
        '"24" of table 1',
        "3.4 GB",
        "405",
    ],
    "enwik8/lrm12_interleaved": [
        "figure 3",
        '"12" of table 1',
        "2.8 GB",
        "273",
    ],
    "enwik8/lrm04_interleaved": [
        *("figure 3", "0.9916 bpc", '"4" of table 1', "1.1 GB", "191"),
    ],
    "enwik8/lrm04_middle": ["section 4", "1.01 bpc"],
    "enwik8/lrm01_last": ["figure 3", '"1" of table 1', "0.50 GB", "155"],
    "enwik8/lrm00": ['"0" of table 1', "0.20 GB", "143"],
    "enwik8/lrm04_interleaved_srm0512": ["figure 4", "0.974 bpc"],
    "wikitext103/lrm18": ["section 4", "perplexity 18.3"],
    "wikitext103/lrm03_interleaved": ["section 4", "perplexity 18.4"],
    "wikitext103/lrm03_last": ["section 4", "perplexity 18.6"],
    "wikitext103/lrm03_first": ["section 4", "perplexity 20.1"],
}


def name_of(path):
    return path.relative_to(CONFIGS).with_suffix("").as_posix()


def experiment_of(path):
    if path.parent == CONFIGS:
        return "lrm_quickstart"
    return f"lrm_{path.parent.name}"


# A twentieth of a second each; nothing here changes what they return.
@functools.cache
def parse(path, *more):
    files = [str(file) for file in (path, *more)]
    return parse_params(experiment_of(path), config_files=files)


@functools.cache
def settings_of(path, *more):
    return resolve(parse(path, *more))


def flatten(section, prefix=""):
    """{a: {b: 1}} -> {a.b: 1}"""
    flat = {}
    for key, value in section.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def header_of(path):
    header = path.read_text().split("\ntask:")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    # As one line, so that it does not matter where a line ends.
    return " ".join(header.replace("\n#", " ").split())


def test_these_are_the_files():
    expected = {CONFIGS / name for name in OTHERS}
    expected |= {param.values[0] for param in PUBLISHED_RUNS}
    assert set(FILES) == expected
    assert TINY.is_file()


@pytest.mark.parametrize("path", [*FILES, TINY], ids=name_of)
def test_headers_say_how_to_run_it(path):
    header = header_of(path)
    file = path.relative_to(CONFIGS.parent).as_posix()
    for word in ("Run: ", "Required: ", "Commonly overridden: "):
        assert word in header
    for line in path.read_text().split("\ntask:")[0].splitlines():
        assert len(line) <= 80 or "--params_override" in line
    run = re.search(r"python tools/train\.py (.*?)--model_dir=\S+", header)
    experiment = "lrm_enwik8" if path == TINY else experiment_of(path)
    assert f"--experiment={experiment} " in run[1]
    assert f"--config_file={file} " in run[1]


@pytest.mark.parametrize(("path", "k", "placement", "short"), PUBLISHED_RUNS)
def test_headers_say_what_they_reproduce(path, k, placement, short):
    header = header_of(path)
    reproduces = header.split("Reproduces: ")[1].split("Run: ")[0]
    assert "Rae & Razavi (2020)" in reproduces
    assert "Differs from " in header
    printed = FIGURES.get(name_of(path), [])
    for words in printed:
        assert words in reproduces
    # No figure of another run, but where it is compared with.
    numbers = set(
        re.findall(r"\d+\.\d+(?= bpc)|perplexity [\d.]*\d", reproduces)
    )
    own = {words.removesuffix(" bpc") for words in printed}
    compared = {"lrm12_interleaved": {"0.9846"}, "lrm12_last": {"0.9846"}}
    compared["lrm04_last"] = {"1.01"}
    assert numbers - own == compared.get(path.stem, set())


@pytest.fixture(scope="module")
def differing_fields():
    """Names of the fields that not all experiments have the same value of."""
    experiments = [
        flatten(exp_factory.get_exp_config(name).as_dict())
        for name in EXPERIMENTS
    ]
    return {
        name
        for name, value in experiments[0].items()
        if any(other[name] != value for other in experiments)
    }


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_says_all_that_differs_between_experiments(
    differing_fields, path
):
    """So tools/show_spans.py needs no --experiment to show it right."""
    assert "task.model.cutoffs" in differing_fields
    given = flatten(yaml.safe_load(path.read_text()))
    assert differing_fields <= given.keys()


def test_a_file_is_the_same_run_with_any_experiment():
    path = CONFIGS / "enwik8" / "lrm12_first.yaml"
    for experiment in EXPERIMENTS:
        params = parse_params(experiment, config_files=[str(path)])
        assert params.as_dict() == parse(path).as_dict()


@pytest.mark.parametrize(("path", "k", "placement", "short"), PUBLISHED_RUNS)
def test_spans_are_those_of_the_name(path, k, placement, short):
    match = re.fullmatch(r"lrm(\d\d)(?:_([a-z]+))?(?:_srm(\d{4}))?", path.stem)
    number, words, srm = match.groups()
    assert (int(number), words or "interleaved") == (k, placement)
    assert int(srm or 128) == short

    settings = settings_of(path)

    num_layers = 18 if path.parent.name == "wikitext103" else 24
    expected = lrm.MemorySpans.arrange(num_layers, k, placement, 2304, short)
    assert settings.spans == expected
    assert (settings.train.num_lanes, settings.train.segment_length) == (
        32,
        384,
    )


@pytest.mark.parametrize(("path", "k", "placement", "short"), PUBLISHED_RUNS)
def test_model_and_schedule_are_the_published_ones(path, k, placement, short):
    folder = path.parent.name
    settings = settings_of(path)
    model = dict(settings.model)
    del model["spans"]

    words = folder == "wikitext103"
    assert model == {
        "vocab_size": {"enwik8": 204, "text8": 27, "wikitext103": 267_735}[
            folder
        ],
        "hidden_size": 1024,
        "num_heads": 16 if words else 8,
        "head_size": 64 if words else 128,
        "inner_size": 4096 if words else 3072,
        "dropout": 0.2 if words else 0.15,
        "attention_dropout": 0.2 if words else 0.15,
        "untie_biases": words,
        "clamp_length": None,
        "same_length": False,
        "attend_to_empty": False,
        "cutoffs": (20_000, 40_000, 200_000) if words else (),
        "div_value": 4 if words else 1,
        "embedding_size": None,
        "tie_embeddings": True,
        "share_projections": True,
        "layer_norm_epsilon": 1e-5,
        "initializer_stddev": 0.005 if words else 0.02,
        "projection_initializer_stddev": 0.01,
    }
    _, _, parameters = experiment_params.sizes(parse(path))
    assert (
        parameters
        == {
            "enwik8": 277_231_820,
            "text8": 277_231_820 - (204 - 27) * (1024 + 1),
            "wikitext103": 285_205_322,
        }[folder]
    )
    assert settings.train_steps == (4_000_000 if words else 400_000)
    warmup_steps = 16_000 if words else 4000
    assert settings.optimizer == OptimizerSettings(
        learning_rate=2.5e-4,
        warmup_steps=warmup_steps,
        warmup_learning_rate=0.0,
        decay_steps=settings.train_steps - warmup_steps,
        offset=warmup_steps,
        alpha=0.01,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        clip_norm=0.25,
    )
    corpus = parse(path).task.corpus
    assert corpus.name == folder
    assert settings.tokenizer == ("words" if words else "symbols")
    assert corpus.skip_newlines == (folder == "enwik8")
    # Section 3.2 of the paper: the first 500K characters.
    expected = 500_000 if folder == "enwik8" else None
    assert settings.validation.max_tokens == expected
    assert settings.train.max_tokens is None


def test_text8_base_is_that_of_dai_et_al():
    """Their tf/scripts/text8_base_gpu.sh and the defaults of train_gpu.py."""
    path = CONFIGS / "text8" / "base_12l.yaml"
    settings = settings_of(path)

    assert settings.spans == lrm.MemorySpans.arrange(12, 12, long=512)
    assert settings.spans.is_long == (True,) * 12
    assert (settings.train.num_lanes, settings.train.segment_length) == (
        24,
        512,
    )
    assert settings.model["dropout"] == 0.1
    assert settings.model["attention_dropout"] == 0.0
    assert settings.train_steps == settings.optimizer.decay_steps == 400_000
    assert settings.optimizer.warmup_steps == settings.optimizer.offset == 0
    assert settings.optimizer.alpha == 0.004
    assert settings.tokenizer == "symbols"
    _, _, parameters = experiment_params.sizes(parse(path))
    # 41M; with the 204 symbols of enwik8 it is the published 41,055,436.
    assert parameters == 41_055_436 - (204 - 27) * (512 + 1)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_schedule_is_written_out(path):
    """Model Garden's own defaults differ from the published values."""
    optimizer = yaml.safe_load(path.read_text())["trainer"]["optimizer_config"]
    cosine = optimizer["learning_rate"]["cosine"]
    assert cosine["alpha"] == (0.004 if path.stem == "base_12l" else 0.01)
    assert optimizer["optimizer"]["adam"]["epsilon"] == 1e-8
    settings = settings_of(path)
    assert settings.optimizer.offset == settings.optimizer.warmup_steps


class TestLocalTiny:
    """The overlay that shrinks any run."""

    @pytest.mark.parametrize("path", FILES, ids=name_of)
    def test_it_shrinks_and_keeps_what_makes_runs_different(self, path):
        run, tiny = settings_of(path), settings_of(path, TINY)

        assert tiny.spans.is_long == run.spans.is_long
        assert set(tiny.spans) <= {96, 16}
        assert {
            tiny.spans[i] for i, v in enumerate(run.spans.is_long) if v
        } <= {96}
        shrunken = {
            "vocab_size": 256,
            "hidden_size": 64,
            "num_heads": 2,
            "head_size": 32,
            "inner_size": 128,
            "cutoffs": (64, 160),
            "embedding_size": None,
            "spans": tiny.spans,
        }
        assert tiny.model == {**run.model, **shrunken}
        assert (tiny.corpus, tiny.input_path) == ("python_stdlib", "")
        assert tiny.tokenizer == "bytes"
        assert tiny.train_steps == 100
        assert tiny.optimizer.warmup_steps == tiny.optimizer.offset == 10
        assert tiny.optimizer.alpha == run.optimizer.alpha
        assert tiny.optimizer.decay_steps == 90

    def test_it_is_for_every_experiment(self):
        for experiment in EXPERIMENTS:
            alone = parse_params(experiment, config_files=[str(TINY)])
            assert resolve(alone).corpus == "python_stdlib"

    def test_every_run_builds_and_steps_with_it(self):
        models = {}
        for path in FILES:
            arguments = dict(settings_of(path, TINY).model)
            spans = arguments.pop("spans")
            # Runs that differ in their spans only share a model and a step,
            # half a second each.
            key = (len(spans), *arguments.items())
            if key in models:
                models[key].with_spans(spans)
                continue
            model = lrm.TransformerXLLanguageModel(spans=spans, **arguments)
            # One token of each of the three clusters.
            tokens = np.array([[0, 64, 255]], "int32")
            log_probs, memories = model.score(tokens, tokens)
            assert np.isfinite(log_probs).all(), path
            assert len(memories) == len(spans) + 1
            models[key] = model
        assert len(models) == 7

    def test_wikitext103_has_its_adaptive_softmax(self):
        path = CONFIGS / "wikitext103" / "lrm03_interleaved.yaml"
        model_arguments = settings_of(path, TINY).model
        model = lrm.TransformerXLLanguageModel(**model_arguments)
        widths = [table.shape for table in model.backbone.embedding.tables]
        assert widths == [(64, 64), (96, 16), (96, 4)]
