"""Training with memories, evaluation, checkpoints."""

from official_lrm.training.evaluation import Evaluator
from official_lrm.training.evaluation_result import EvaluationResult
from official_lrm.training.experiment import run_experiment
from official_lrm.training.loading import load_model, read_tokenizer
from official_lrm.training.params import parse_params, read_params
from official_lrm.training.scored_text import ScoredText
from official_lrm.training.trainer import LanguageModelTrainer

__all__ = [
    "EvaluationResult",
    "Evaluator",
    "LanguageModelTrainer",
    "ScoredText",
    "load_model",
    "parse_params",
    "read_params",
    "read_tokenizer",
    "run_experiment",
]
