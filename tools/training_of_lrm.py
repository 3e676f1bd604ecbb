"""Training steps of official_lrm, a contender of `tools/benchmark.py train`."""

import keras
import tensorflow as tf
import training_contender

import official_lrm as lrm
from official_lrm.configs.language_modeling import LanguageModelingConfig
from official_lrm.configs.settings import OptimizerSettings
from official_lrm.tasks import LanguageModelingTask


def main():
    """Trains on random tokens; the memory is full after some steps."""
    sizes = training_contender.workload()
    keras.config.set_dtype_policy(sizes.dtype)
    keras.utils.set_random_seed(1)
    model = lrm.TransformerXLLanguageModel(
        vocab_size=sizes.vocab_size,
        spans=sizes.spans,
        hidden_size=sizes.hidden_size,
        num_heads=sizes.num_heads,
        head_size=sizes.head_size,
        inner_size=sizes.inner_size,
        dropout=sizes.dropout,
        attention_dropout=sizes.attention_dropout,
    )
    config = LanguageModelingConfig()
    config.model.rematerialize = sizes.rematerialize
    task = LanguageModelingTask(config)
    optimizer = task.create_optimizer(
        OptimizerSettings(
            learning_rate=2.5e-4,
            warmup_steps=0,
            warmup_learning_rate=0.0,
            decay_steps=400_000,
            offset=0,
            alpha=0.0,
            beta_1=0.9,
            beta_2=0.999,
            epsilon=1e-8,
            clip_norm=0.25,
        )
    )
    optimizer.build(model.trainable_variables)
    shape = (sizes.batch_size, sizes.segment_length)
    tokens = tf.random.stateless_uniform(
        shape, (1, 2), 0, sizes.vocab_size, tf.int32
    )
    state = {
        "memories": model.initial_memories(sizes.batch_size),
        "step": 0,
    }

    @tf.function
    def train(memories, seed):
        logs = task.train_step(
            {
                "tokens": tokens,
                "targets": tokens,
                "weights": tf.ones(shape),
                "reset": tf.zeros(shape[:1], tf.bool),
                "memories": memories,
                "seed": seed,
            },
            model,
            optimizer,
            clip=0.25,
        )
        return logs["loss"], logs["memories"]

    def step():
        seed = tf.constant([1, state["step"]])
        loss, state["memories"] = train(state["memories"], seed)
        state["step"] += 1
        loss.numpy()

    training_contender.serve(
        step,
        sizes,
        version=f"tensorflow {tf.__version__}, keras {keras.__version__}",
        parameters=model.count_params(),
    )


if __name__ == "__main__":
    main()
