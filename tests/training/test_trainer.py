"""The trainer carries memories and leaves them alone in evaluation."""

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.tasks import LanguageModelingTask


def _weights(trainer):
    return [np.array(weight) for weight in trainer.model.weights]


def test_training_on_text_lowers_the_loss(make_params, make_trainer, train):
    text = b"the cat sat on the mat and the dog sat on the log. " * 60
    trainer = make_trainer(make_params(text=text, steps=60))

    losses = train(trainer, 60)

    assert losses[0] == pytest.approx(np.log(256), abs=0.2)
    assert np.mean(losses[-5:]) < 0.6 * losses[0]


def test_losses_are_those_of_carried_memories(make_params, make_trainer, train):
    """Given weights that stand still, when the trainer runs, then each loss
    is that of a plain loop which hands memories from segment to segment."""
    trainer = make_trainer(make_params(learning_rate=0.0))
    model, lanes = trainer.model, trainer.task.training_lanes()
    rng = np.random.default_rng(3)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))

    losses = train(trainer, 9)

    carried, cold = [], []
    memories = model.initial_memories(3)
    for step in range(9):
        batch = lanes.batch(step)
        log_probs, memories = model.score(
            batch["tokens"], batch["targets"], memories
        )
        carried.append(-np.mean(log_probs))
        log_probs, _ = model.score(batch["tokens"], batch["targets"])
        cold.append(-np.mean(log_probs))
    np.testing.assert_allclose(losses, carried, rtol=1e-5)
    assert np.abs(np.subtract(losses, cold)[1:]).max() > 1e-2
    for name, value in memories.items():
        np.testing.assert_allclose(trainer.memories[name], value, atol=1e-4)


def test_the_cut_into_host_loops_changes_nothing(make_params, make_trainer):
    params = make_params(dropout=0.2, attention_dropout=0.1)
    one_by_one, at_once = make_trainer(params), make_trainer(params)

    for _ in range(6):
        one_by_one.train(tf.constant(1))
    at_once.train(tf.constant(4))
    at_once.train(tf.constant(2))

    assert int(at_once.global_step) == 6
    assert at_once._loop.experimental_get_tracing_count() == 1
    for a, b in zip(_weights(one_by_one), _weights(at_once), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for name, value in one_by_one.memories.items():
        np.testing.assert_allclose(value, at_once.memories[name], atol=1e-5)


def test_evaluation_disturbs_nothing(make_params, make_trainer, train):
    params = make_params(dropout=0.2)
    plain, evaluated = make_trainer(params), make_trainer(params)

    expected = train(plain, 6)
    losses = train(evaluated, 3)
    first = evaluated.evaluate(tf.constant(-1))
    again = evaluated.evaluate(tf.constant(-1))
    losses += train(evaluated, 3)

    assert losses == expected
    assert first == again, "evaluation starts from fresh memories"
    lanes = evaluated.task.evaluation_lanes()
    assert first["tokens"] == lanes.num_tokens - 1


def test_dropout_depends_on_seed_and_step(make_params, make_trainer, train):
    """Given weights that stand still and equal inputs in every step."""
    text = b"a" * 4000

    def losses(seed):
        # Built with one seed, so that only dropout differs.
        trainer = make_trainer(
            make_params(text=text, learning_rate=0.0, dropout=0.4, spans=(0, 0))
        )
        object.__setattr__(trainer._settings, "seed", seed)
        return train(trainer, 4)

    assert losses(5) == losses(5)
    assert losses(5) != losses(6)
    assert len(set(losses(5))) == 4, "each step draws other masks"


def test_a_lane_that_starts_over_is_reset(make_params, make_trainer, train):
    """Given a corpus of few segments, when a lane wraps to its beginning,
    then its position starts again and the others go on."""
    trainer = make_trainer(make_params(text=bytes(range(64)) * 2, lanes=2))
    lanes = trainer.task.training_lanes()
    assert lanes.segments_per_pass == 17

    train(trainer, 10)

    # Lane 1 starts at segment 8 and comes to segment 0 in step 9.
    np.testing.assert_array_equal(trainer.memories["position"], [70, 7])


def test_padding_does_not_count(make_params, make_trainer):
    """Given a segment with padding, then loss and gradient are those of its
    targets alone, whatever stands in the padding."""
    trainer = make_trainer(make_params())
    norms, losses = [], []

    class Optimizer:
        learning_rate = 0.5

        def apply(self, gradients, variables):
            norms.append(float(tf.linalg.global_norm(gradients)))

    rng = np.random.default_rng(1)
    text = rng.integers(0, 256, (3, 8), dtype="int32")
    weights = np.ones((3, 7), "float32")
    weights[0, 3:] = weights[2, 5:] = 0
    for padding in (0, 201):
        tokens = np.where(weights > 0, text[:, :-1], padding)
        targets = np.where(weights > 0, text[:, 1:], padding)
        inputs = {
            "tokens": tf.constant(tokens, tf.int32),
            "targets": tf.constant(targets, tf.int32),
            "weights": tf.constant(weights),
            "reset": tf.constant([False] * 3),
            "memories": trainer.model.initial_memories(3),
            "seed": tf.constant([1, 2]),
        }
        logs = trainer.task.train_step(inputs, trainer.model, Optimizer())
        losses.append(float(logs["loss"]))
        log_probs, _ = trainer.model.score(tokens, targets)
    expected = -np.sum(log_probs * weights) / 15
    np.testing.assert_allclose(losses, [expected] * 2, rtol=1e-5)
    np.testing.assert_allclose(norms[1], norms[0], rtol=1e-5)


def test_clips_the_gradient_by_its_global_norm(make_params, make_trainer):
    trainer = make_trainer(make_params())
    applied = {}

    class Optimizer:
        learning_rate = 0.5

        def apply(self, gradients, variables):
            applied["gradients"] = [np.array(g) for g in gradients]

    batch = trainer.task.training_lanes().batch(0)
    inputs = {
        **{name: tf.constant(value) for name, value in batch.items()},
        "memories": trainer.model.initial_memories(3),
        "seed": tf.constant([1, 2]),
    }

    def step(clip):
        logs = trainer.task.train_step(
            inputs, trainer.model, Optimizer(), clip=clip
        )
        return float(logs["gradient_norm"]), applied["gradients"]

    norm, raw = step(None)
    clipped_norm, clipped = step(norm / 3)

    assert clipped_norm == norm, "the norm is that before clipping"
    for a, b in zip(raw, clipped, strict=True):
        np.testing.assert_allclose(a / 3, b, rtol=1e-4, atol=1e-7)


def test_lanes_that_do_not_fit_the_replicas_are_refused(make_params):
    params = make_params(lanes=3)
    task = LanguageModelingTask(params.task)
    context = tf.distribute.InputContext(1, 0, 2)

    with pytest.raises(ValueError, match="multiple of the 2 replicas; got 3"):
        task.build_inputs(params.task.train_data, context)


def test_reports_what_tensorboard_shows(make_params, make_trainer):
    trainer = make_trainer(make_params())

    logs = trainer.train(tf.constant(2))

    assert set(logs) == {
        "training_loss",
        "bpc",
        "learning_rate",
        "gradient_norm",
        "tokens_per_second",
    }
    assert logs["bpc"] == pytest.approx(logs["training_loss"] / np.log(2))


def test_an_evaluation_of_a_subset_says_so(make_params, make_trainer, capsys):
    """Given 2 lanes of 89 validation targets, when 3 segments of 7 are
    scored, then the line has both numbers."""
    trainer = make_trainer(make_params())

    logs = trainer.evaluate(tf.constant(3))

    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f"evaluate: {logs['bpc']:.4f} bpc; T=7, 2 lane(s), ")
    assert "42 targets (a subset of the 89 of the validation split)" in line
    assert set(logs) == {
        "validation_loss",
        "bpc",
        "perplexity",
        "tokens",
        "split_tokens",
    }
    assert (logs["tokens"], logs["split_tokens"]) == (42, 89)
    assert logs["bpc"] == pytest.approx(logs["validation_loss"] / np.log(2))

    logs = trainer.evaluate(tf.constant(-1))

    line = capsys.readouterr().out.splitlines()[-1]
    assert "89 targets (all of the validation split)" in line
    assert logs["tokens"] == logs["split_tokens"] == 89


def test_the_evaluation_of_words_is_in_perplexity(
    make_params, make_trainer, capsys
):
    params = make_params(
        text=b"the cat sat on the mat\n" * 40, vocab_size=11, cutoffs=[]
    )
    params.task.corpus.tokenizer = "words"
    # The first targets only, which is a subset too.
    params.task.validation_data.max_tokens = 9
    trainer = make_trainer(params)

    logs = trainer.evaluate(tf.constant(-1))

    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f"evaluate: {logs['perplexity']:.3f} perplexity; ")
    # The 46 bytes are two lines of 6 words and an end each.
    assert f"9 targets (a subset of the {logs['split_tokens']} of" in line
    assert 10 < logs["split_tokens"] < 16
    assert "bpc" not in logs
    assert logs["perplexity"] == pytest.approx(np.exp(logs["validation_loss"]))


def test_mixed_bfloat16_trains(make_params, make_trainer, train):
    text = b"the cat sat on the mat and the dog sat on the log. " * 60
    trainer = make_trainer(make_params(text=text, steps=30, dtype="bfloat16"))

    losses = train(trainer, 30)

    assert trainer.memories["memory_02"].dtype == tf.bfloat16
    assert trainer.model.weights[0].dtype == "float32"
    assert losses[-1] < 0.8 * losses[0]


def test_logs_the_learning_rate_that_was_applied(make_params, make_trainer):
    trainer = make_trainer(make_params(learning_rate=0.01))
    schedule = trainer.optimizer._learning_rate

    logs = [trainer.train(tf.constant(n)) for n in (1, 3)]

    assert logs[0]["learning_rate"] == float(schedule(0))
    assert logs[1]["learning_rate"] == float(schedule(3))


def test_a_loss_that_is_not_finite_ends_the_run(make_params, make_trainer):
    trainer = make_trainer(make_params(learning_rate=1e30))

    with pytest.raises(ValueError, match="the loss is .* after step") as error:
        for _ in range(9):
            trainer.train(tf.constant(1))

    assert "nan" in str(error.value) or "inf" in str(error.value)
    assert "1e+30" in str(error.value)
    assert "\n" not in str(error.value)


def test_one_token_a_segment_and_no_memory(make_params, make_trainer, train):
    """Given a single key, whose score does not matter: its kernels have no
    gradient."""
    trainer = make_trainer(make_params(spans=(0, 0), segment_length=1))

    assert np.isfinite(train(trainer, 2)).all()


def test_a_gradient_that_is_not_finite_ends_the_run(make_params, make_trainer):
    """Given a step whose loss is finite and whose gradient is not, when it
    is the last of a host loop, then its weights are not saved as good."""
    trainer = make_trainer(make_params())
    step = trainer.task.train_step

    def spoiled(*args, **kwargs):
        return {**step(*args, **kwargs), "gradient_norm": tf.constant(np.inf)}

    trainer.task.train_step = spoiled

    with pytest.raises(ValueError, match="the gradient's norm inf"):
        trainer.train(tf.constant(1))
