"""Books are kept apart, from the folder to the memories."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from official_lrm.configs import LanguageModelingConfig
from official_lrm.tasks import LanguageModelingTask
from official_lrm.tasks.language_modeling import score_segment

BOOKS = {
    "a.txt": b"one fish\n",
    "b.txt": b"two\n",
    "c.txt": b"red fish blue fish\n",
    "d.txt": b"validation\n",
    "e.txt": b"test\n",
}


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))
    folder = tmp_path / "books"
    folder.mkdir()
    for name, text in BOOKS.items():
        (folder / name).write_bytes(text)
    return LanguageModelingTask(
        LanguageModelingConfig(
            model={
                "num_layers": 2,
                "hidden_size": 6,
                "num_heads": 2,
                "head_size": 3,
                "inner_size": 7,
                "spans": {"lengths": [40, 40]},
            },
            corpus={"name": "books", "input_path": str(folder)},
            train_data={"global_batch_size": 1, "segment_length": 5},
            validation_data={
                "split": "train",
                "global_batch_size": 1,
                "segment_length": 5,
            },
        )
    )


def test_a_book_begins_a_segment_with_a_reset(task):
    lanes = task.training_lanes()
    batches = [lanes.batch(step) for step in range(lanes.steps_per_pass)]
    read = [
        (bytes(batch["tokens"][0][batch["weights"][0] == 1].astype(np.uint8)))
        for batch in batches
    ]
    # The last byte of all is a target only.
    assert read == [
        *(b"one f", b"ish\n"),
        b"two\n",
        *(b"red f", b"ish b", b"lue f", b"ish"),
    ]
    resets = [bool(batch["reset"][0]) for batch in batches]
    assert resets == [True, False, True, True, False, False, False]
    targets = b"".join(
        batch["targets"][0][batch["weights"][0] == 1].astype(np.uint8).tobytes()
        for batch in batches
    )
    whole = BOOKS["a.txt"] + BOOKS["b.txt"] + BOOKS["c.txt"]
    assert targets == whole[1:]


def test_a_book_is_scored_without_the_one_before(task):
    """Given all books in turn, then the last one costs what it does alone."""
    model = task.build_model()
    for weight in model.weights:
        rng = np.random.default_rng(len(weight.path))
        weight.assign(rng.normal(size=weight.shape) * 0.5)
    lanes = task.evaluation_lanes()
    memories, nats = model.initial_memories(1), []
    for step in range(lanes.num_steps):
        batch = {
            name: tf.constant(value)
            for name, value in lanes.batch(step).items()
        }
        logs = score_segment({**batch, "memories": memories}, model)
        memories = logs["memories"]
        nats.append(float(logs["nats"]))
    text = np.frombuffer(BOOKS["c.txt"], np.uint8).astype(np.int32)[None]
    log_probs, _ = model.score(text[:, :-1], text[:, 1:])
    np.testing.assert_allclose(sum(nats[-4:]), -np.sum(log_probs), rtol=1e-5)
    # It would not be so with the memories of the first two books.
    mixed, memories = [], model.initial_memories(1)
    joined = b"".join(BOOKS.values())[: len(text[0]) + 13]
    tokens = np.frombuffer(joined, np.uint8).astype(np.int32)[None]
    mixed, _ = model.score(tokens[:, :-1], tokens[:, 1:])
    assert abs(float(-np.sum(mixed[:, 13:])) - sum(nats[-4:])) > 0.1
