"""Tiny experiments."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from official.core import task_factory

from official_lrm.configs import resolve
from official_lrm.training import parse_params
from official_lrm.training.checkpointing import MemoryCheckpointManager
from official_lrm.training.experiment import build_trainer


@pytest.fixture
def make_params(tmp_path):
    """Returns make(**overrides of the task's parts) -> ExperimentConfig."""

    def make(
        text=None,
        spans=(5, 0, 13),
        steps=12,
        learning_rate=0.01,
        clip_norm=0.25,
        lanes=3,
        segment_length=7,
        seed=1,
        dtype="float32",
        **model,
    ):
        path = tmp_path / "text.txt"
        if text is None:
            rng = np.random.default_rng(0)
            text = bytes(rng.integers(0, 256, size=600, dtype=np.uint8)) * 3
        path.write_bytes(text)
        config = {
            "task": {
                "model": {
                    "num_layers": len(spans),
                    "hidden_size": 16,
                    "num_heads": 2,
                    "head_size": 8,
                    "inner_size": 24,
                    "spans": {"lengths": list(spans)},
                    **model,
                },
                "corpus": {"name": "text", "input_path": str(path)},
                "train_data": {
                    "global_batch_size": lanes,
                    "segment_length": segment_length,
                },
                "validation_data": {
                    "global_batch_size": 2,
                    "segment_length": segment_length,
                },
                "seed": seed,
            },
            "trainer": {
                "train_steps": steps,
                "steps_per_loop": 1,
                "summary_interval": 1,
                "optimizer_config": {
                    "optimizer": {"adam": {"global_clipnorm": clip_norm}},
                    "learning_rate": {
                        "cosine": {
                            "initial_learning_rate": learning_rate,
                            "offset": 2,
                        }
                    },
                    "warmup": {"linear": {"warmup_steps": 2}},
                },
            },
            "runtime": {"mixed_precision_dtype": dtype},
        }
        return parse_params(
            "lrm_quickstart", params_override=json.dumps(config)
        )

    return make


@pytest.fixture
def make_trainer():
    """Returns make(params) -> LanguageModelTrainer on one device."""
    policy = keras.config.dtype_policy()

    def make(params):
        settings = resolve(params)
        keras.config.set_dtype_policy(settings.dtype_policy)
        keras.utils.set_random_seed(settings.seed)
        task = task_factory.get_task(params.task)
        return build_trainer(params, settings, task)

    yield make
    keras.config.set_dtype_policy(policy)


@pytest.fixture
def make_manager():
    """Returns make(trainer, directory) -> MemoryCheckpointManager."""

    def make(trainer, directory, max_to_keep=2):
        return MemoryCheckpointManager(
            trainer, str(directory), max_to_keep, checkpoint_interval=1
        )

    return make


@pytest.fixture
def train():
    """Returns train(trainer, steps) -> loss of each step in nats."""

    def run(trainer, steps):
        return [
            trainer.train(tf.constant(1))["training_loss"] for _ in range(steps)
        ]

    return run
