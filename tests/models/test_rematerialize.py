"""Rematerialisation changes memory, not one number."""

import keras
import numpy as np
import pytest
import tensorflow as tf

SEED = np.array([17, 5], "int32")
DROPOUT = {"dropout": 0.3, "attention_dropout": 0.2}
CUTOFFS = {"cutoffs": (5, 11), "div_value": 2}
# Of gradients of which the largest is about 1.
TOLERANCE = {"float32": 1e-5, "float64": 1e-13, "mixed_bfloat16": 2e-2}


@pytest.fixture(params=TOLERANCE)
def dtype_policy(request):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(policy)


def differentiated(model, tokens, memories, rematerialize):
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        log_probs, memories = model.score(
            tokens[:, :-1],
            tokens[:, 1:],
            memories,
            training=True,
            seed=SEED,
            rematerialize=rematerialize,
        )
        loss = -tf.reduce_mean(log_probs)
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    gradients = {
        variable.path: tf.convert_to_tensor(gradient)
        for variable, gradient in zip(variables, gradients, strict=True)
    }
    return {"loss": loss, **memories, **gradients}


def assert_close(outputs, expected, tolerance):
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        assert outputs[name].dtype == value.dtype
        np.testing.assert_allclose(
            np.array(outputs[name], "float64"),
            np.array(value, "float64"),
            atol=tolerance,
            rtol=tolerance,
            err_msg=name,
        )


def test_the_same_loss_memories_and_gradients(
    make_model, make_tokens, dtype_policy
):
    # Given a model that drops, with memories that are written,
    model = make_model((5, 0), untie_biases=True, **DROPOUT, **CUTOFFS)
    tokens = make_tokens(2, 8)
    _, memories = model(tokens)
    expected = differentiated(model, tokens, memories, False)
    # when its gradient is computed with its activations computed again,
    for layers in (True, "long"):
        outputs = differentiated(model, tokens, memories, layers)
        # then nothing else comes out: the masks are the same ones.
        assert_close(outputs, expected, TOLERANCE[dtype_policy])


def test_in_a_graph_with_mirrored_variables(make_model, make_tokens):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = make_model((5, 0), **DROPOUT)
    tokens = make_tokens(2, 8)
    _, memories = model(tokens)

    @tf.function
    def run(rematerialize):
        return strategy.run(
            differentiated, args=(model, tokens, memories, rematerialize)
        )

    assert_close(run(True), run(False), TOLERANCE["float32"])


def test_the_backward_pass_runs_the_blocks_again(make_model, make_tokens):
    # Given a count of what a graph of the gradient holds,
    def products(rematerialize):
        model, tokens = make_model((5, 0)), make_tokens(2, 8)
        memories = model.initial_memories(2)
        graph = (
            tf.function(differentiated)
            .get_concrete_function(model, tokens, memories, rematerialize)
            .graph
        )
        kinds = [operation.type for operation in graph.get_operations()]
        return sum("MatMul" in kind for kind in kinds)

    # then the products of a forward pass come on top, or one layer's.
    assert products(True) > 1.25 * products(False)
    assert products(False) < products("long") < products(True)


@pytest.mark.parametrize("layers", ["all", 1, None])
def test_which_layers_is_checked(make_model, make_tokens, layers):
    with pytest.raises(ValueError, match="rematerialize must be True, False"):
        make_model((5, 0)).score(
            make_tokens(2, 8), make_tokens(2, 8), rematerialize=layers
        )
