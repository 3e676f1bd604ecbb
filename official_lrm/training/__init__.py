"""Training with memories, evaluation, checkpoints."""

from official_lrm.training.evaluation import EvaluationResult, Evaluator
from official_lrm.training.experiment import run_experiment
from official_lrm.training.loading import load_model, read_tokenizer
from official_lrm.training.params import parse_params, read_params
from official_lrm.training.trainer import LanguageModelTrainer

__all__ = [
    "EvaluationResult",
    "Evaluator",
    "LanguageModelTrainer",
    "load_model",
    "parse_params",
    "read_params",
    "read_tokenizer",
    "run_experiment",
]
