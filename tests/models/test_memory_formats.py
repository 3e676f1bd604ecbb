"""Tests of models whose memories hold other things, or in other dtypes."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import official_lrm as lrm
from official_lrm.memory import append_segment
from official_lrm.models.transformer_xl import heads_of, slots_of

UNEVEN = (5, 0, 11)

SETTINGS = {
    "plain": {},
    "same_length": {"same_length": True},
    "clamped": {"clamp_length": 3, "same_length": True},
    "empty": {"attend_to_empty": True},
    "empty_same_length": {"attend_to_empty": True, "same_length": True},
    "untied": {"untie_biases": True},
    "adaptive": {"cutoffs": (3, 11), "div_value": 2, "tie_embeddings": False},
}

FORMATS = [
    (content, dtype)
    for content in ("hidden", "key_value")
    for dtype in (None, "bfloat16", "int8")
]

# Ways of cutting 37 tokens, more than 3 times the longest span.
CUTS = [(37,), (1,) * 37, (7, 1, 13, 1, 15), (5, 11, 2, 19), (12, 25)]


def dtype_of(value):
    return keras.backend.standardize_dtype(value.dtype)


def decoded(model, memories):
    """What a model reads in its memories, in float64, by part and layer."""
    memory_format = model.memory_format
    return {
        (part, layer): np.array(value).astype("float64")
        for layer, span in enumerate(model.spans)
        if span
        for part, value in memory_format.decode(layer, memories).items()
    } | {"position": np.array(memories["position"])}


def in_graph(model):
    """The model as a server runs it: batch and T are known at run time only."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.int32),
            {
                name: tf.TensorSpec(spec.shape, spec.dtype)
                for name, spec in model.memory_specs().items()
            },
        ]
    )
    def call(tokens, memories):
        return model(tokens, memories)

    return call


def deviations(first, second):
    """Largest absolute difference of each lane."""
    difference = np.abs(np.array(first) - np.array(second))
    return np.max(difference.reshape(len(difference), -1), axis=1)


@pytest.fixture
def of_format(make_model):
    def make(content, memory_dtype, **kwargs):
        kwargs = {"same_length": True, **kwargs}
        return make_model(
            UNEVEN, memory_format=content, memory_dtype=memory_dtype, **kwargs
        )

    return make


class TestKeysAndValues:
    """In the compute dtype they change nothing."""

    @pytest.mark.parametrize("setting", SETTINGS)
    def test_they_are_projections_of_the_hidden_memories(
        self, make_model, make_tokens, setting
    ):
        # Given a model and the same with keys and values for its memory,
        model = make_model(UNEVEN, **SETTINGS[setting])
        other = model.with_spans(UNEVEN, memory_format="key_value")
        memories, slots = (m.initial_memories(2) for m in (model, other))
        assert slots.keys() == {
            *("key_00", "value_00", "key_02", "value_02", "position")
        }
        for seed, length in enumerate((7, 1, 13, 1, 7)):
            tokens = make_tokens(2, length, seed)
            # when segments go through both,
            logits, memories = model(tokens, memories)
            same, slots = other(tokens, slots)
            # then the logits are the same, and the slots what would be
            # projected from the memories.
            np.testing.assert_allclose(same, logits, atol=1e-5)
            for layer in (0, 2):
                memory = memories[f"memory_{layer:02d}"]
                attention = model.backbone.blocks[layer].attention
                expected = slots_of(*attention.keys_values(memory))
                for part, value in expected.items():
                    held = slots[f"{part}_{layer:02d}"]
                    assert held.shape == (2, UNEVEN[layer], 3, 5)
                    np.testing.assert_allclose(held, value, atol=1e-5)
            assert np.array_equal(slots["position"], memories["position"])
        # They are read: without them, logits are others.
        assert np.max(np.abs(other(tokens)[0] - same)) > 1e-2

    @pytest.mark.parametrize("setting", SETTINGS)
    def test_all_that_reads_memories_reads_them(
        self, make_model, make_tokens, setting
    ):
        model = make_model(UNEVEN, **SETTINGS[setting])
        other = model.with_spans(UNEVEN, memory_format="key_value")
        tokens, targets = make_tokens(2, 7), make_tokens(2, 7, seed=5)
        _, memories = model(make_tokens(2, 13, seed=7))
        _, slots = other(make_tokens(2, 13, seed=7))
        for call in (
            lambda model, memories: model.score(tokens, targets, memories)[0],
            lambda model, memories: model.next_logits(tokens, memories)[0],
        ):
            np.testing.assert_allclose(
                call(other, slots), call(model, memories), atol=1e-5
            )

    @pytest.mark.parametrize(("content", "dtype"), FORMATS)
    def test_a_segment_can_be_appended_later(
        self, of_format, make_tokens, content, dtype
    ):
        model, tokens = of_format(content, dtype), make_tokens(2, 15)
        _, memories = model(tokens[:, :7])
        _, expected = model.score(tokens[:, 7:-1], tokens[:, 8:], memories)
        _, segment = model.score(
            tokens[:, 7:-1], tokens[:, 8:], memories, append=False
        )
        assert {x.shape[1:2] for x in segment.values()} == {(7,), ()}
        appended = append_segment(memories, segment)
        assert appended.keys() == expected.keys()
        for name, value in expected.items():
            assert dtype_of(appended[name]) == dtype_of(value)
            np.testing.assert_array_equal(appended[name], value)

    def test_heads_and_slots_are_inverse(self):
        rng = np.random.default_rng(3)
        key, value = rng.normal(size=(2, 3, 2, 11, 5))  # [N, B, T, H]
        slots = slots_of(key, value)
        assert slots["key"].shape == (2, 11, 3, 5)
        assert slots["value"][1, 7, 2, 4] == value[2, 1, 7, 4]
        for heads, expected in zip(heads_of(slots), (key, value), strict=True):
            np.testing.assert_array_equal(heads, expected)


class TestDtypes:
    @pytest.mark.parametrize(("content", "dtype"), FORMATS, ids=str)
    @pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "float64"])
    def test_what_comes_out_is_what_went_in(
        self, of_format, make_tokens, content, dtype, policy
    ):
        model = of_format(content, dtype, dtype=policy)
        memories = model.initial_memories(2)
        for length in (1, 13, 7):
            _, after = model(make_tokens(2, length), memories)
            assert after.keys() == memories.keys()
            for name, spec in model.memory_specs(2).items():
                assert dtype_of(memories[name]) == spec.dtype
                assert dtype_of(after[name]) == spec.dtype
                assert memories[name].shape == after[name].shape == spec.shape
            memories = after

    @pytest.mark.parametrize(("content", "dtype"), FORMATS, ids=str)
    def test_cuts_do_not_matter(
        self, of_format, make_tokens, run_segments, content, dtype
    ):
        # In float64, where no rounding falls to another side for noise.
        model = of_format(content, dtype, dtype="float64")
        tokens = make_tokens(2, 37)
        expected, final = run_segments(model, tokens, CUTS[0])
        final = decoded(model, final)
        call, fresh = in_graph(model), model.initial_memories(2)
        for cuts in CUTS:
            logits, memories = run_segments(call, tokens, cuts, fresh)
            np.testing.assert_allclose(logits, expected, atol=1e-9)
            for name, value in decoded(model, memories).items():
                np.testing.assert_allclose(value, final[name], atol=1e-9)

    @pytest.mark.parametrize(("content", "dtype"), FORMATS, ids=str)
    def test_nor_do_they_in_float32(
        self, of_format, make_tokens, run_segments, content, dtype
    ):
        # Given 7 lanes: here the noise of 1e-6 can make a number fall to
        # another integer, from where on that lane is another, on any machine.
        model = of_format(content, dtype)
        tokens = make_tokens(7, 37)
        call, fresh = in_graph(model), model.initial_memories(7)
        expected, final = run_segments(call, tokens, CUTS[0], fresh)
        final = decoded(model, final)
        for cuts in CUTS[1:]:
            # when they are cut otherwise,
            logits, memories = run_segments(call, tokens, cuts, fresh)
            # then most lanes are the same.
            lanes = deviations(logits, expected)
            print(f"{content} {dtype}: {np.sort(lanes)}")
            assert np.median(lanes) < 1e-4, lanes
            for name, value in decoded(model, memories).items():
                lanes = deviations(value, final[name])
                assert np.median(lanes) < 1e-4, (name, lanes)

    @pytest.mark.parametrize("content", ["hidden", "key_value"])
    @pytest.mark.parametrize(
        ("dtype", "least", "most"),
        [
            ("float64", 0, 1e-5),
            ("float16", 1e-4, 0.03),
            ("bfloat16", 1e-3, 0.3),
            ("int8", 1e-3, 0.5),
        ],
    )
    def test_little_is_lost(
        self, of_format, make_tokens, run_segments, content, dtype, least, most
    ):
        model = of_format(content, dtype)
        tokens = make_tokens(2, 37)
        logits, memories = run_segments(model, tokens, CUTS[2])
        exact, final = run_segments(
            model.with_spans(UNEVEN, memory_dtype=None), tokens, CUTS[2]
        )
        deviation = np.max(np.abs(logits - exact))
        print(f"{content} {dtype}: logits differ by up to {deviation:.5f}")
        assert least <= deviation < most
        # Logits are of the order of 5.
        assert np.std(exact) > 1
        # The first layer's memory is not a consequence of another's.
        final = decoded(model.with_spans(UNEVEN, memory_dtype=None), final)
        for (part, layer), value in list(decoded(model, memories).items())[:-1]:
            if layer == 0:
                assert np.max(np.abs(value - final[part, 0])) < most / 10


class TestLanes:
    @pytest.mark.parametrize(("content", "dtype"), FORMATS, ids=str)
    @pytest.mark.parametrize("attend_to_empty", [False, True])
    def test_position_zero_is_all_that_a_reset_takes(
        self, of_format, make_tokens, content, dtype, attend_to_empty
    ):
        # Given slots that hold what no model wrote,
        model = of_format(content, dtype, attend_to_empty=attend_to_empty)
        fresh = model.initial_memories(2)
        garbage = {
            name: np.full(
                value.shape,
                -128 if dtype_of(value) == "int8" else np.nan,
                np.array(value).dtype,
            )
            for name, value in fresh.items()
            if name != "position"
        }
        garbage["position"] = np.array([0, 0], "int32")
        for length in (3, 13):
            tokens = make_tokens(2, length)
            # when the position says that none was written,
            logits, memories = model(tokens, garbage)
            # then they are as good as fresh ones, bit for bit.
            expected, final = model(tokens, fresh)
            np.testing.assert_array_equal(logits, expected)
            assert memories.keys() == final.keys()
            for name, value in final.items():
                np.testing.assert_array_equal(memories[name], value)

    @pytest.mark.parametrize(("content", "dtype"), FORMATS, ids=str)
    def test_resetting_one_leaves_the_other_as_it_is(
        self, of_format, make_tokens, content, dtype
    ):
        model = of_format(content, dtype)
        _, memories = model(make_tokens(2, 13, seed=5))
        tokens = make_tokens(2, 7)
        expected, final = model(tokens, memories)
        reset = lrm.memory.reset_lanes(memories, np.array([True, False]))
        logits, after = model(tokens, reset)
        np.testing.assert_array_equal(logits[1], expected[1])
        for name, value in final.items():
            np.testing.assert_array_equal(after[name][1], value[1])
        # The first is that of a fresh model.
        fresh, _ = model(tokens)
        np.testing.assert_allclose(logits[0], fresh[0], atol=1e-5)
        assert np.max(np.abs(logits[0] - expected[0])) > 1e-2


class TestLengths:
    """Lanes of different numbers of tokens in one call."""

    LENGTHS = np.array([7, 0, 3, 1], "int32")

    @pytest.fixture
    def started(self, make_tokens):
        def start(model, lanes):
            fresh = [model.initial_memories(1) for _ in range(lanes)]
            for i in range(1, lanes):
                _, fresh[i] = model(make_tokens(1, 4 * i, seed=i), fresh[i])
            return {
                name: np.concatenate([np.array(lane[name]) for lane in fresh])
                for name in fresh[0]
            }

        return start

    @pytest.mark.parametrize(("content", "dtype"), FORMATS, ids=str)
    @pytest.mark.parametrize("same_length", [False, True])
    def test_each_lane_is_as_if_it_were_alone(
        self, of_format, started, make_tokens, content, dtype, same_length
    ):
        # Given lanes at positions 0, 4, 8, 12 and rows of 7 tokens,
        model = of_format(
            content, dtype, same_length=same_length, dtype="float64"
        )
        memories = started(model, 4)
        assert memories["position"].tolist() == [0, 4, 8, 12]
        tokens = make_tokens(4, 7)
        # when only some of them count,
        logits, after = model(tokens, memories, lengths=self.LENGTHS)
        last, same = model.next_logits(tokens, memories, lengths=self.LENGTHS)
        assert after["position"].dtype == "int32"
        after, same = decoded(model, after), decoded(model, same)
        # then each lane gives what it does alone, without the others.
        for i, length in enumerate(self.LENGTHS):
            lane = {name: value[[i]] for name, value in memories.items()}
            expected, final = model(tokens[[i], :length], lane)
            np.testing.assert_allclose(
                logits[i, :length], expected[0], atol=1e-9
            )
            if length:
                np.testing.assert_allclose(last[i], expected[0, -1], atol=1e-9)
            for name, value in decoded(model, final).items():
                for slots in (after, same):
                    np.testing.assert_allclose(
                        slots[name][i], value[0], atol=1e-9
                    )

    @pytest.mark.parametrize(("content", "dtype"), FORMATS, ids=str)
    def test_padding_is_not_read(
        self, of_format, started, make_tokens, content, dtype
    ):
        model = of_format(content, dtype)
        memories, tokens = started(model, 4), make_tokens(4, 7)
        behind = np.arange(7) >= self.LENGTHS[:, None]
        others = np.where(behind, make_tokens(4, 7, seed=5), tokens)
        assert np.sum(others != tokens) > 9
        logits, after = model(tokens, memories, lengths=self.LENGTHS)
        same, final = model(others, memories, lengths=self.LENGTHS)
        np.testing.assert_array_equal(
            np.array(logits)[~behind], np.array(same)[~behind]
        )
        for name, value in after.items():
            np.testing.assert_array_equal(final[name], value)

    def test_a_lane_without_tokens_keeps_its_memory(
        self, make_model, started, make_tokens
    ):
        model = make_model(UNEVEN)
        memories = started(model, 4)
        _, after = model(make_tokens(4, 7), memories, lengths=self.LENGTHS)
        for name, value in memories.items():
            np.testing.assert_array_equal(after[name][1], value[1])


@pytest.mark.parametrize(("content", "dtype"), FORMATS, ids=str)
def test_no_lanes_and_no_tokens(of_format, make_tokens, content, dtype):
    model = of_format(content, dtype)
    call = in_graph(model)
    for lanes, length in ((0, 5), (2, 0), (0, 0)):
        memories = model.initial_memories(lanes)
        if lanes:
            _, memories = model(make_tokens(lanes, 7), memories)
        tokens = make_tokens(lanes, length)
        for function in (model, call):
            logits, after = function(tokens, memories)
            assert logits.shape == (lanes, length, 19)
            assert after.keys() == memories.keys()
            for name, value in memories.items():
                np.testing.assert_array_equal(after[name], value)


class TestTraining:
    def test_keys_and_values_are_refused(self, of_format, make_tokens):
        # They would get no gradient through the memory.
        model, tokens = of_format("key_value", None), make_tokens(2, 7)
        message = 'memory_format must be "hidden" in training, .*key_value'
        with pytest.raises(ValueError, match=message):
            model(tokens, training=True)
        with pytest.raises(ValueError, match=message):
            model.score(tokens, tokens, training=True)
        model(tokens, training=False)

    def test_int8_is_refused(self, of_format, make_tokens):
        # Rounding has no gradient: keys and values would get none.
        message = "memory_dtype must be .* in training, .*int8"
        with pytest.raises(ValueError, match=message):
            of_format("hidden", "int8")(make_tokens(2, 7), training=True)


class TestSerialization:
    @pytest.mark.parametrize(("content", "dtype"), FORMATS, ids=str)
    def test_the_config_says_it(self, of_format, content, dtype):
        model = of_format(content, dtype)
        config = json.loads(json.dumps(model.get_config()))
        assert config["memory_format"] == content
        assert config["memory_dtype"] == dtype
        other = type(model).from_config(config)
        assert other.memory_specs() == model.memory_specs()
        assert other.get_config() == model.get_config()

    @pytest.mark.parametrize(("content", "dtype"), FORMATS, ids=str)
    def test_other_spans_keep_it(self, of_format, content, dtype):
        model = of_format(content, dtype)
        other = model.with_spans((3, 2, 1))
        assert other.memory_format.content == content
        assert other.memory_format.dtype == model.memory_format.dtype
        assert len(other.memory_specs()) > len(model.memory_specs())

    def test_weights_are_of_any_format(self, make_model, make_tokens):
        model = make_model(UNEVEN)
        other = model.with_spans(
            UNEVEN, memory_format="key_value", memory_dtype="int8"
        )
        for first, second in zip(model.weights, other.weights, strict=True):
            assert first is second
        back = other.with_spans(
            UNEVEN, memory_format="hidden", memory_dtype=None
        )
        tokens = make_tokens(2, 7)
        np.testing.assert_array_equal(back(tokens)[0], model(tokens)[0])
        assert back.memory_specs() == model.memory_specs()

    def test_presets_and_keras_files(self, of_format, make_tokens, tmp_path):
        model = of_format("key_value", "int8")
        model.save_to_preset(str(tmp_path / "preset"))
        model.save(tmp_path / "model.keras")
        tokens = make_tokens(2, 7)
        for loaded in (
            type(model).from_preset(str(tmp_path / "preset")),
            keras.saving.load_model(tmp_path / "model.keras"),
        ):
            assert loaded.memory_specs() == model.memory_specs()
            np.testing.assert_allclose(
                loaded(tokens)[0], model(tokens)[0], atol=1e-5
            )

    @pytest.mark.parametrize(
        ("argument", "value"),
        [("memory_format", "keys"), ("memory_dtype", "int4")],
    )
    def test_others_are_refused(self, make_model, argument, value):
        message = f"^{argument} must be one of .*; got '{value}'"
        with pytest.raises(ValueError, match=message):
            make_model(UNEVEN, **{argument: value})
        with pytest.raises(ValueError, match=message):
            make_model(UNEVEN).with_spans(UNEVEN, **{argument: value})

    def test_memories_of_another_format_are_refused(
        self, of_format, make_tokens
    ):
        model, tokens = of_format("hidden", None), make_tokens(2, 7)
        for content, dtype in FORMATS:
            if (content, dtype) in (
                ("hidden", None),
                ("hidden", "bfloat16"),  # Floats are cast.
            ):
                continue
            memories = of_format(content, dtype).initial_memories(2)
            with pytest.raises(
                ValueError, match="memories (lack|hold) |must be of dtype"
            ):
                model(tokens, memories)


# Reads `job.npz`: a config, weights and tokens [B, S, T]. Writes `out.npz`.
JAX_WORKER = """
import json, sys
import keras
import numpy as np
import official_lrm as lrm

# Drawing weights that the job replaces takes JAX seconds for each shape.
keras.initializers.RandomNormal.__call__ = (
    lambda self, shape, dtype=None, **kwargs: np.zeros(shape, dtype)
)
assert keras.backend.backend() == "jax"
with np.load(sys.argv[1] + "/job.npz", allow_pickle=False) as file:
    job = dict(file)
config = json.loads(str(job["config"]))
plain = lrm.TransformerXLLanguageModel.from_config(config)
plain.set_weights([job[f"weight_{i}"] for i in range(len(plain.weights))])
out = {}
for content, dtype in json.loads(str(job["formats"])):
    model = plain.with_spans(
        plain.spans, memory_format=content, memory_dtype=dtype
    )
    memories = model.initial_memories(len(job["tokens"]))
    for s in range(job["tokens"].shape[1]):
        logits, memories = model(
            job["tokens"][:, s], memories, lengths=job["lengths"][:, s]
        )
        out[f"{content}_{dtype}_{s}"] = np.array(logits)
    for name, spec in model.memory_specs(len(job["tokens"])).items():
        memory = memories[name]
        assert memory.shape == spec.shape
        assert keras.backend.standardize_dtype(memory.dtype) == spec.dtype
np.savez(sys.argv[1] + "/out.npz", **out)
"""


def test_jax_computes_what_tensorflow_does(make_model, make_tokens, tmp_path):
    pytest.importorskip("jax")
    assert keras.backend.backend() == "tensorflow"
    # Given a model and three segments, of which lanes have their own part,
    model = make_model(UNEVEN, same_length=True)
    tokens = make_tokens(2, 21).reshape(2, 3, 7)
    lengths = np.array([[7, 0, 5], [3, 7, 7]], "int32")
    formats = [("hidden", "int8"), ("key_value", None)]
    np.savez(
        tmp_path / "job.npz",
        config=json.dumps(model.get_config()),
        formats=json.dumps(formats),
        tokens=tokens,
        lengths=lengths,
        **{f"weight_{i}": w for i, w in enumerate(model.get_weights())},
    )
    # when JAX runs them,
    run = subprocess.run(
        [sys.executable, "-c", JAX_WORKER, str(tmp_path)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": str(pathlib.Path(lrm.__file__).parents[1]),
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        },
    )
    assert run.returncode == 0, run.stderr
    # then the logits are TensorFlow's.
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        outputs = dict(file)
    for content, dtype in formats:
        same = model.with_spans(
            UNEVEN, memory_format=content, memory_dtype=dtype
        )
        memories = same.initial_memories(2)
        for s in range(3):
            logits, memories = same(
                tokens[:, s], memories, lengths=lengths[:, s]
            )
            counts = np.arange(7) < lengths[:, s, None]
            difference = np.abs(outputs[f"{content}_{dtype}_{s}"] - logits)
            # A rounding that falls to the other side is worth 0.05.
            atol = 0.05 if dtype else 1e-5
            assert np.max(difference[counts]) < atol
