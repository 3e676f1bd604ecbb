"""Tests of `predict_ragged`: lanes of different lengths in one request."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.serving import ServingModule

T = 19
LENGTHS = (0, 1, 7, T)
# Before the request: nothing, a part of the memories of 5 and 11, and more.
SEEN = (0, 3, 13)


@pytest.fixture
def call(call_export, short):
    """Calls a signature of `short`."""
    return functools.partial(call_export, short)


@pytest.fixture
def lanes(make_tokens):
    """B = 13 lanes: each length after each past, and one that was reset."""

    def make(model):
        """(tokens [B, T], lengths [B], memories)"""
        pasts = []
        for seen in SEEN:
            memories = model.initial_memories(1)
            if seen:
                tokens = make_tokens(1, seen, seed=seen)
                _, memories = model(tokens, memories)
            pasts += [memories] * len(LENGTHS)
        pasts.append(pasts[-1])
        memories = {
            name: np.concatenate([np.array(past[name]) for past in pasts])
            for name in pasts[0]
        }
        # Its memories are another text's still.
        memories["position"][-1] = 0
        lengths = np.array([*LENGTHS * len(SEEN), 7], "int32")
        return make_tokens(len(lengths), T), lengths, memories

    return make


def lane(values, index):
    return {name: np.array(value)[[index]] for name, value in values.items()}


def alone(model, tokens, lengths, memories):
    """Logits and memories of each lane fed alone, without padding."""
    results = []
    for i, length in enumerate(lengths):
        logits, after = np.zeros([1, 0, 23]), lane(memories, i)
        if length:
            logits, after = model(tokens[[i], :length], after)
        results.append((np.array(logits)[0], after))
    return results


def trace_and_call(model, tokens, lengths, memories):
    function = ServingModule(model).signatures(["predict_ragged"])
    inputs = {"tokens": tokens, "lengths": lengths, **memories}
    return function["predict_ragged"](
        **{name: tf.constant(value) for name, value in inputs.items()}
    )


def assert_lanes_equal(outputs, expected, assert_memories_equal, atol):
    outputs = dict(outputs)
    logits = outputs.pop("logits")
    for i, (exact, after) in enumerate(expected):
        np.testing.assert_allclose(logits[i, : len(exact)], exact, atol=atol)
        assert_memories_equal(lane(outputs, i), after, atol=atol)


class TestEachLaneIsAsIfAlone:
    def test_one_request(self, short, call, lanes, assert_memories_equal):
        # Given lanes of all lengths, after pasts of all lengths,
        tokens, lengths, memories = lanes(short.model)
        assert sorted(set(memories["position"])) == list(SEEN)
        # when they are one request,
        outputs = call(
            "predict_ragged",
            {"tokens": tokens, "lengths": lengths, **memories},
        )
        # then each comes out as the model gives it alone.
        assert outputs["logits"].shape == (13, T, 23)
        position = memories["position"] + lengths
        assert outputs["position"].tolist() == position.tolist()
        assert_lanes_equal(
            outputs,
            alone(short.model, tokens, lengths, memories),
            assert_memories_equal,
            atol=1e-5,
        )

    def test_lanes_without_tokens_stay_bit_for_bit(self, short, call, lanes):
        tokens, _, memories = lanes(short.model)
        # What was never written need not come back.
        tokens = tokens[: len(memories["position"]) - 1]
        memories = {name: value[:-1] for name, value in memories.items()}
        lengths = np.where(np.arange(12) % 4 == 2, 7, 0).astype("int32")
        outputs = call(
            "predict_ragged",
            {"tokens": tokens, "lengths": lengths, **memories},
        )
        for name, value in memories.items():
            same = np.array(
                [
                    np.array_equal(one, other)
                    for one, other in zip(value, outputs[name], strict=True)
                ]
            )
            np.testing.assert_array_equal(same, lengths == 0)

    def test_request_after_request(
        self, short, call, lanes, make_tokens, assert_memories_equal
    ):
        # Given lanes that go on at different speeds, and pause,
        _, _, memories = lanes(short.model)
        expected = [(None, lane(memories, i)) for i in range(13)]
        rng = np.random.default_rng(5)
        for length in (7, 1, 3):
            tokens = make_tokens(13, length, seed=length)
            lengths = rng.integers(0, length + 1, 13, dtype="int32")
            assert min(lengths) == 0 and max(lengths) == length
            # when each response goes into the next request as it is,
            outputs = call(
                "predict_ragged",
                {"tokens": tokens, "lengths": lengths, **memories},
            )
            memories = {
                name: outputs[name] for name in outputs if name != "logits"
            }
            # then each lane is that of the model, call after call.
            for i, (_, past) in enumerate(expected):
                logits, after = short.model(tokens[[i], : lengths[i]], past)
                expected[i] = (np.array(logits)[0], after)
            assert_lanes_equal(
                outputs, expected, assert_memories_equal, atol=1e-5
            )

    def test_full_lanes_are_those_of_predict(
        self, short, call, lanes, assert_memories_equal
    ):
        tokens, lengths, memories = lanes(short.model)
        outputs = call(
            "predict_ragged",
            {"tokens": tokens, "lengths": np.full_like(lengths, T), **memories},
        )
        expected = call("predict", {"tokens": tokens, **memories})
        assert_memories_equal(outputs, expected, atol=1e-5)

    def test_no_lanes_and_no_tokens(self, short, call):
        for count, length in ((0, 5), (3, 0)):
            memories = short.model.initial_memories(count)
            outputs = call(
                "predict_ragged",
                {
                    "tokens": np.zeros([count, length], "int32"),
                    "lengths": np.zeros(count, "int32"),
                    **memories,
                },
            )
            assert outputs["logits"].shape == (count, length, 23)
            assert outputs["position"].tolist() == [0] * count
            assert outputs["memory_00"].shape == (count, 5, 10)

    def test_of_a_model_with_other_masks(
        self, make_model, lanes, assert_memories_equal
    ):
        model = make_model(
            same_length=True, clamp_length=3, attend_to_empty=True
        )
        inputs = lanes(model)
        assert_lanes_equal(
            trace_and_call(model, *inputs),
            alone(model, *inputs),
            assert_memories_equal,
            atol=1e-5,
        )

    def test_of_other_memories(self, make_model, lanes, assert_memories_equal):
        model = make_model(memory_format="key_value", memory_dtype="int8")
        inputs = lanes(model)
        outputs = trace_and_call(model, *inputs)
        expected = alone(model, *inputs)
        # No tokens are no error in the process either.
        assert model(inputs[0][:, :0])[0].shape == (13, 0, 23)

        def decoded(memories):
            parts = {
                f"{part} {layer}": value
                for layer in (0, 2)
                for part, value in model.memory_format.decode(
                    layer, memories
                ).items()
            }
            return {**parts, "position": memories["position"]}

        # An integer may be the next one, by a rounding of what it is made of.
        assert_lanes_equal(
            {"logits": outputs["logits"], **decoded(outputs)},
            [(logits, decoded(after)) for logits, after in expected],
            assert_memories_equal,
            atol=0.1,
        )


class TestPadding:
    def test_it_changes_nothing_bit_for_bit(self, short, call, lanes):
        # Given two requests that differ in the padding only,
        tokens, lengths, memories = lanes(short.model)
        text = np.arange(T) < lengths[:, None]
        outputs = [
            call(
                "predict_ragged",
                {
                    "tokens": np.where(text, tokens, padding).astype("int32"),
                    "lengths": lengths,
                    **memories,
                },
            )
            for padding in (0, 22, 5 + tokens[::-1] % 7)
        ]
        # then only the logits there differ, which nobody reads.
        for other in outputs[1:]:
            assert other.keys() == outputs[0].keys()
            for name, value in outputs[0].items():
                if name == "logits":
                    assert np.any(value[~text] != other[name][~text])
                    value, seen = value[text], other[name][text]
                else:
                    seen = other[name]
                np.testing.assert_array_equal(seen, value)

    @pytest.mark.parametrize("token", [-1, 23])
    def test_it_is_of_valid_tokens(self, short, call, token):
        # So what `tokenize` pads with is no request by mistake.
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            call(
                "predict_ragged",
                {
                    "tokens": np.array([[3, token], [5, 7]], "int32"),
                    "lengths": np.array([1, 2], "int32"),
                    **short.model.initial_memories(2),
                },
            )
        assert "tokens must be from 0 to 22" in caught.value.message
