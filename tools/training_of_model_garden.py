"""Training steps of Model Garden's TransformerXL layer: a peer.

The layer with an embedding in front, whose table is the softmax's kernel too.
"""

import importlib.metadata

import tensorflow as tf
import tf_keras
import training_contender
from official.nlp.modeling import layers


def main():
    """Trains on random tokens."""
    sizes = training_contender.workload()
    tf_keras.mixed_precision.set_global_policy(sizes.dtype)
    tf.random.set_seed(1)
    span, length = max(sizes.spans), sizes.segment_length
    batch_size, hidden_size = sizes.batch_size, sizes.hidden_size
    layer = layers.TransformerXL(
        vocab_size=sizes.vocab_size,
        num_layers=len(sizes.spans),
        hidden_size=hidden_size,
        num_attention_heads=sizes.num_heads,
        head_size=sizes.head_size,
        inner_size=sizes.inner_size,
        dropout_rate=sizes.dropout,
        attention_dropout_rate=sizes.attention_dropout,
        initializer=tf_keras.initializers.RandomNormal(stddev=0.02),
        tie_attention_biases=True,
        memory_length=span,
        reuse_length=0,
    )
    table = tf.Variable(
        tf.random.normal([sizes.vocab_size, hidden_size], stddev=0.02)
    )
    optimizer = tf_keras.optimizers.Adam(2.5e-4, global_clipnorm=0.25)
    tokens = tf.random.uniform(
        [batch_size, length], 0, sizes.vocab_size, tf.int32
    )
    # Distances K, K - 1, ... 0.
    positions = layers.RelativePositionEmbedding(hidden_size)(
        None, length=span + length + 1
    )[::-1]
    positions = tf.tile(positions[None], [batch_size, 1, 1])
    visible = tf.linalg.band_part(tf.ones([length, span + length]), -1, span)
    mask = tf.tile(visible[None, None], [batch_size, 1, 1, 1])

    @tf.function
    def train(memories):
        with tf.GradientTape() as tape:
            hidden, memories = layer(
                tf.gather(table, tokens),
                relative_position_encoding=positions,
                state=memories,
                content_attention_mask=mask,
                training=True,
            )
            logits = tf.einsum("btd,vd->btv", tf.cast(hidden, "float32"), table)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(tokens, logits)
            )
        variables = [*layer.trainable_variables, table]
        optimizer.apply_gradients(
            zip(tape.gradient(loss, variables), variables, strict=True)
        )
        return loss, memories

    compute_dtype = tf_keras.mixed_precision.global_policy().compute_dtype
    zeros = tf.zeros([batch_size, span, hidden_size], compute_dtype)
    state = {"memories": [zeros] * len(sizes.spans)}

    def step():
        loss, state["memories"] = train(state["memories"])
        loss.numpy()

    step()  # Makes the variables.
    training_contender.serve(
        step,
        sizes,
        version="tf-models-official "
        + importlib.metadata.version("tf-models-official"),
        parameters=layer.count_params() + sizes.vocab_size * hidden_size,
    )


if __name__ == "__main__":
    main()
