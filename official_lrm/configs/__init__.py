"""Model Garden configurations and the registered experiments."""

from official_lrm.configs.language_modeling import (
    EXPERIMENTS,
    CorpusConfig,
    LanesConfig,
    LanguageModelConfig,
    LanguageModelingConfig,
    SpansConfig,
    lrm_enwik8,
    lrm_quickstart,
    lrm_text8,
    lrm_wikitext2,
    lrm_wikitext103,
)
from official_lrm.configs.settings import (
    OptimizerSettings,
    RunSettings,
    resolve,
)

__all__ = [
    "EXPERIMENTS",
    "CorpusConfig",
    "LanesConfig",
    "LanguageModelConfig",
    "LanguageModelingConfig",
    "OptimizerSettings",
    "RunSettings",
    "SpansConfig",
    "lrm_enwik8",
    "lrm_quickstart",
    "lrm_text8",
    "lrm_wikitext2",
    "lrm_wikitext103",
    "resolve",
]
