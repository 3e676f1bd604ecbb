"""Model Garden tasks."""

from official_lrm.tasks.language_modeling import LanguageModelingTask

__all__ = ["LanguageModelingTask"]
