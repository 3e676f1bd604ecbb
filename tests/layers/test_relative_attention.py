"""Tests of relative attention against loops written from the equation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from official_lrm.layers import RelativeMultiHeadAttention, attention_mask

B, T, M, N, H, D = 2, 3, 5, 7, 11, 13
KERNELS = ("query", "key", "value", "position", "output")


def arguments(
    rng, batch_size=B, num_queries=T, span=M, heads=(N, H), hidden_size=D
):
    """Random inputs of the layer, in float64."""
    num_keys = num_queries + span
    return {
        "inputs": rng.normal(size=(batch_size, num_queries, hidden_size)),
        "memory": (
            rng.normal(size=(batch_size, span, hidden_size)) if span else None
        ),
        # Any table will do: each row stands for a distance.
        "positions": rng.normal(size=(num_keys, hidden_size)),
        "content_bias": rng.normal(size=heads),
        "position_bias": rng.normal(size=heads),
    }


def built_layer(rng, heads=(N, H), hidden_size=D, dtype="float64", **kwargs):
    layer = RelativeMultiHeadAttention(*heads, dtype=dtype, **kwargs)
    layer.build((None, None, hidden_size))
    for name in KERNELS:
        kernel = getattr(layer, f"{name}_kernel")
        kernel.assign(rng.normal(size=kernel.shape) * 0.3)
    return layer


def naive_attention(
    layer, inputs, memory, positions, content_bias, position_bias, mask
):
    """One number at a time."""
    *kernels, w_o = (
        np.array(getattr(layer, f"{name}_kernel")) for name in KERNELS
    )  # [N, H, D] each.
    w_q, w_k, w_v, w_r = (np.moveaxis(kernel, -1, 0) for kernel in kernels)
    context = inputs
    if memory is not None:
        context = np.concatenate([memory, inputs], axis=1)
    batch_size, num_queries, _ = inputs.shape
    num_keys = context.shape[1]
    span = num_keys - num_queries
    outputs = np.zeros(inputs.shape)
    for b in range(batch_size):
        for n in range(layer.num_heads):
            for i in range(num_queries):
                query = inputs[b, i] @ w_q[:, n]
                weights = np.zeros(num_keys)
                for j in range(num_keys):
                    if not mask[b, i, j]:
                        continue
                    key = context[b, j] @ w_k[:, n]
                    distance = i + span - j
                    relative = positions[num_keys - 1 - distance] @ w_r[:, n]
                    score = (query + content_bias[n]) @ key
                    score += (query + position_bias[n]) @ relative
                    weights[j] = np.exp(score / np.sqrt(layer.head_size))
                weights /= np.sum(weights)
                value = sum(
                    weights[j] * (context[b, j] @ w_v[:, n])
                    for j in range(num_keys)
                )
                outputs[b, i] += value @ w_o[n]
    return outputs


class TestAttention:
    @pytest.mark.parametrize(
        ("dtype", "tolerance"), [("float64", 1e-12), ("float32", 3e-5)]
    )
    @pytest.mark.parametrize("span", [0, 2, M])
    @pytest.mark.parametrize("same_length", [False, True])
    def test_it_is_the_equation(self, dtype, tolerance, span, same_length):
        rng = np.random.default_rng(2)
        layer = built_layer(rng, dtype=dtype)
        inputs = arguments(rng, span=span)
        mask = attention_mask(np.array([1, 97], "int32"), span, T, same_length)
        mask = np.broadcast_to(mask, (B, T, T + span))
        expected = naive_attention(layer, **inputs, mask=mask)
        cast = {
            k: v if v is None else v.astype(dtype) for k, v in inputs.items()
        }
        outputs = layer(**cast, mask=mask)
        assert outputs.dtype == dtype
        np.testing.assert_allclose(outputs, expected, atol=tolerance)
        # The scale at which the tolerance is to be read.
        assert np.std(expected) > 0.5

    def test_a_mask_for_all_lanes(self):
        rng = np.random.default_rng(3)
        layer, inputs = built_layer(rng), arguments(rng)
        mask = np.tril(np.ones([T, T + M], "bool"), k=M)
        alone = layer(**inputs, mask=mask[None])
        each = layer(**inputs, mask=np.stack([mask] * B))
        np.testing.assert_array_equal(alone, each)

    def test_what_is_masked_has_no_influence(self):
        rng = np.random.default_rng(5)
        layer, inputs = built_layer(rng), arguments(rng)
        mask = np.tril(np.ones([B, T, T + M], "bool"), k=M)
        mask[0, :, :3] = False
        before = np.array(layer(**inputs, mask=mask))
        inputs["memory"] = inputs["memory"].copy()
        inputs["memory"][0, :3] = 1e6
        after = np.array(layer(**inputs, mask=mask))
        assert before.tobytes() == after.tobytes()
        # Whereas what is seen has.
        inputs["memory"][0, 3] = 1e6
        assert not np.allclose(layer(**inputs, mask=mask)[0], before[0])

    def test_parameters_do_not_depend_on_the_memory(self):
        layer = built_layer(np.random.default_rng(2))
        for name in KERNELS:
            assert getattr(layer, f"{name}_kernel").shape == (N, H, D)
        assert layer.count_params() == 5 * D * N * H

    def test_huge_scores_do_not_overflow_in_half_precision(self):
        rng = np.random.default_rng(7)
        layer = built_layer(rng, dtype="mixed_float16")
        inputs = {
            k: (v * 7).astype("float16") for k, v in arguments(rng).items()
        }
        mask = np.tril(np.ones([1, T, T + M], "bool"), k=M)
        outputs = layer(**inputs, mask=mask)
        assert outputs.dtype == "float16"
        assert np.all(np.isfinite(outputs))

    @pytest.mark.parametrize(
        ("policy", "training", "is_wide", "expected"),
        [
            ("mixed_float16", False, True, "float32"),
            ("mixed_float16", True, True, "float32"),
            ("mixed_bfloat16", False, True, "float32"),
            ("mixed_bfloat16", True, False, "float32"),
            # The operation's own arithmetic is of float32 then.
            ("mixed_bfloat16", True, True, "bfloat16"),
            ("float32", True, True, "float32"),
            ("float64", True, True, "float64"),
        ],
    )
    def test_softmax_is_never_in_half_precision(
        self, monkeypatch, policy, training, is_wide, expected
    ):
        rng = np.random.default_rng(7)
        layer = built_layer(rng, dtype=policy)
        inputs = {
            name: keras.ops.cast(value, layer.compute_dtype)
            for name, value in arguments(rng).items()
        }
        dtypes, softmax = [], keras.ops.softmax

        def record(scores):
            dtypes.append(keras.backend.standardize_dtype(scores.dtype))
            return softmax(scores)

        attend = "official_lrm.layers.attend"
        monkeypatch.setattr(f"{attend}.ops.softmax", record)
        monkeypatch.setattr(
            f"{attend}.softmax_of_bfloat16_is_wide", lambda: is_wide
        )
        mask = np.ones([1, T, T + M], "bool")
        layer(**inputs, mask=mask, training=training)
        assert dtypes == [expected]

    @pytest.mark.parametrize("in_graph", [False, True])
    def test_training_has_the_softmax_of_float32(self, monkeypatch, in_graph):
        # Given scores of bfloat16 and a causal mask,
        rng = np.random.default_rng(7)
        layer = built_layer(rng, dtype="mixed_bfloat16")
        inputs = {
            name: keras.ops.cast(value, "bfloat16")
            for name, value in arguments(rng, span=128).items()
        }
        mask = np.tril(np.ones([1, T, T + 128], "bool"), k=128)

        def train():
            def attend():
                return layer(**inputs, mask=mask, training=True)

            return (tf.function(attend) if in_graph else attend)()

        # when softmax takes them as they are, if that is wide here,
        outputs = train()
        # then it is the one of float32 to the last bit.
        monkeypatch.setattr(
            "official_lrm.layers.attend.softmax_of_bfloat16_is_wide",
            lambda: False,
        )
        assert np.array_equal(outputs, train())

    def test_dropout_is_of_training_only(self):
        rng = np.random.default_rng(11)
        layer, inputs = built_layer(rng, dropout=0.5), arguments(rng)
        inputs["mask"] = np.tril(np.ones([1, T, T + M], "bool"), k=M)
        seed = np.array([3, 5], "int32")
        plain = np.array(layer(**inputs))
        still = layer(**inputs, training=False, seed=seed, site=2)
        assert np.array_equal(still, plain)
        dropped = np.array(layer(**inputs, training=True, seed=seed, site=2))
        again = layer(**inputs, training=True, seed=seed, site=2)
        other = layer(**inputs, training=True, seed=seed, site=3)
        assert not np.allclose(dropped, plain)
        assert np.array_equal(dropped, again)
        assert not np.allclose(dropped, other)

    def test_dropout_acts_on_the_probabilities(self):
        # Given one head whose values and output are the inputs themselves,
        # equal at all positions,
        layer = RelativeMultiHeadAttention(1, 1, dropout=0.5)
        layer.build((None, None, 1))
        for name in KERNELS:
            kernel = getattr(layer, f"{name}_kernel")
            kernel.assign(np.ones(kernel.shape))
        ones = np.ones([1, 8, 1], "float32")
        outputs = layer(
            ones,
            None,
            np.zeros([8, 1], "float32"),
            np.zeros([1, 1], "float32"),
            np.zeros([1, 1], "float32"),
            np.tril(np.ones([1, 8, 8], "bool")),
            training=True,
            seed=np.array([3, 5], "int32"),
        )
        # then query i's output is 2 * (number kept) / (i + 1).
        kept = np.ravel(outputs) * np.arange(1, 9) / 2
        np.testing.assert_allclose(kept, np.round(kept), atol=1e-5)
        assert len(set(np.round(kept))) > 2

    def test_config_round_trip(self):
        layer = RelativeMultiHeadAttention(
            3, 5, dropout=0.2, initializer_stddev=0.3, dtype="mixed_bfloat16"
        )
        config = layer.get_config()
        again = RelativeMultiHeadAttention.from_config(config)
        assert again.get_config() == config
        assert (again.num_heads, again.head_size) == (3, 5)
        assert again.dropout == 0.2
        assert again.dtype_policy == layer.dtype_policy


@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_finite_differences(training):
    # Given a small layer in float64, with one lane's memory half empty,
    rng = np.random.default_rng(13)
    layer = built_layer(rng, heads=(2, 3), hidden_size=5, dropout=0.3)
    inputs = arguments(rng, heads=(2, 3), hidden_size=5)
    mask = attention_mask(np.array([2, 97], "int32"), M, T)
    weights = rng.normal(size=(B, T, 5))
    kernels = [getattr(layer, f"{name}_kernel") for name in KERNELS]
    values = [*inputs.values(), *(np.array(kernel) for kernel in kernels)]
    names = [*inputs, *KERNELS]

    def loss(tensors):
        seed = np.array([3, 5], "int32")
        outputs = layer(*tensors, mask, training=training, seed=seed)
        return tf.reduce_sum(tf.tanh(outputs) * weights)

    def loss_of(values):
        for kernel, value in zip(kernels, values[5:], strict=True):
            kernel.assign(value)
        return float(loss([tf.constant(value) for value in values[:5]]))

    # when gradients are taken with respect to inputs and kernels,
    with tf.GradientTape() as tape:
        tensors = [tf.constant(value) for value in values[:5]]
        tape.watch(tensors)
        total = loss(tensors)
    sources = tensors + [kernel.value for kernel in kernels]
    gradients = tape.gradient(total, sources)

    # then along random directions they are central differences, but for the
    # memory's, which has none in training.
    step = 1e-5
    for i, (name, gradient) in enumerate(zip(names, gradients, strict=True)):
        assert gradient is not None, name
        if training and name == "memory":
            assert not np.any(gradient)
            continue
        for _ in range(3):
            direction = rng.normal(size=values[i].shape)
            ends = []
            for sign in (1, -1):
                moved = list(values)
                moved[i] = values[i] + sign * step * direction
                ends.append(loss_of(moved))
            difference = (ends[0] - ends[1]) / (2 * step)
            slope = np.sum(np.array(gradient) * direction)
            assert difference == pytest.approx(slope, rel=1e-6, abs=1e-8), name
            assert abs(slope) > 1e-4, name
