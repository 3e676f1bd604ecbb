"""Fixtures of the kernels' tests."""

import pytest
import tensorflow as tf


class _TPUStrategy:
    """Stands in for one that runs on TPUs."""


@pytest.fixture
def for_tpus(monkeypatch):
    """What is traced is traced as under a TPUStrategy."""
    monkeypatch.setattr(tf.distribute, "TPUStrategy", _TPUStrategy)
    monkeypatch.setattr(tf.distribute, "get_strategy", _TPUStrategy)
