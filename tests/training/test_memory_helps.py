"""On a text that only memory can predict, memory predicts it."""

import numpy as np
import tensorflow as tf


def _repeated_strings():
    """Random strings of 23 symbols out of 8, each three times in a row.

    Nothing predicts a string the first time; its repetitions are known to
    whoever remembers 23 positions. Bound: log(8) / 3 nats with memory, log(8)
    without.
    """
    rng = np.random.default_rng(0)
    strings = rng.integers(0, 8, size=(3000, 23), dtype=np.uint8)
    return np.tile(strings[:, None], (1, 3, 1)).tobytes()


def test_memory_beyond_the_segment_is_used(make_params, make_trainer):
    """Given segments shorter than the repetition, when models with and
    without memory are trained alike, then only the first learns to repeat."""

    def loss(spans):
        params = make_params(
            text=_repeated_strings(),
            spans=spans,
            steps=700,
            learning_rate=0.01,
            clip_norm=1.0,
            lanes=32,
            segment_length=11,
            vocab_size=8,
            hidden_size=32,
            num_heads=2,
            head_size=16,
            inner_size=32,
        )
        trainer = make_trainer(params)
        trainer.train(tf.constant(700))
        return trainer.evaluate(tf.constant(-1))["validation_loss"]

    with_memory, without = loss((29,)), loss((0,))

    print(f"nats: {with_memory:.3f} with memory, {without:.3f} without")
    assert without > 0.97 * np.log(8)
    assert with_memory < 0.6 * np.log(8)
