"""Tests of decoding over rings against the model, token by token."""

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
from official_lrm.models.ring_decoder import RingDecoder

UNEVEN = (5, 0, 11)
STEPS = 37  # More than 3 times the longest span.

SETTINGS = {
    "plain": {},
    "empty": {"attend_to_empty": True},
    "clamped": {"clamp_length": 3},
    "untied": {"untie_biases": True},
    "adaptive": {"cutoffs": (3, 11), "div_value": 2, "tie_embeddings": False},
    "float64": {"dtype": "float64"},
}

FORMATS = [
    (content, dtype)
    for content in ("hidden", "key_value")
    for dtype in (None, "bfloat16", "int8")
]

IDS = {"ids": lambda value: str(value).replace(" ", "")}


def dtype_of(value):
    return keras.backend.standardize_dtype(value.dtype)


def lane(memories, index):
    return {name: value[index : index + 1] for name, value in memories.items()}


def same_bits(first, second):
    return np.array(first).tobytes() == np.array(second).tobytes()


@pytest.fixture
def of_format(make_model):
    def make(content="hidden", memory_dtype=None, spans=UNEVEN, **kwargs):
        return make_model(
            spans,
            same_length=True,
            memory_format=content,
            memory_dtype=memory_dtype,
            **kwargs,
        )

    return make


@pytest.fixture
def started(make_tokens):
    """Memories of lanes at the positions 0, 3 and 13: empty, begun and full."""

    def start(model, positions=(0, 3, 13)):
        lanes = []
        for length in positions:
            memories = model.initial_memories(1)
            if length:
                _, memories = model(make_tokens(1, length, length), memories)
            lanes.append(memories)
        return {
            name: tf.concat([memories[name] for memories in lanes], axis=0)
            for name in lanes[0]
        }

    return start


@pytest.fixture
def assert_equal():
    """Compares what the memories of two models of one format say."""

    def check(model, memories, expected, atol):
        assert memories.keys() == expected.keys()
        for name, value in expected.items():
            assert memories[name].dtype == value.dtype
            assert memories[name].shape == value.shape
        assert np.array_equal(memories["position"], expected["position"])
        for layer, span in enumerate(model.spans):
            if span:
                read = model.memory_format.decode(layer, memories)
                for part, value in model.memory_format.decode(
                    layer, expected
                ).items():
                    np.testing.assert_allclose(
                        tf.cast(read[part], tf.float64),
                        tf.cast(value, tf.float64),
                        rtol=0,
                        atol=atol,
                        err_msg=f"{part} of layer {layer}",
                    )

    return check


class Decoding:
    """A RingDecoder whose steps run in a graph."""

    def __init__(self, model, memories):
        self.model = model
        self.decoder = RingDecoder(model, memories)
        self.state = self.decoder.state
        self._step = tf.function(self.decoder.step)

    def step(self, tokens, active=None):
        if active is None:
            active = np.ones(len(tokens), "bool")
        logits, self.state = self._step(
            tf.constant(tokens), self.state, tf.constant(active)
        )
        return logits.numpy()

    def memories(self):
        return self.decoder.memories(self.state)


@pytest.fixture
def assert_same_as_model(started, make_tokens, assert_equal):
    def check(model, atol, steps=STEPS):
        # Given lanes whose memories are empty, begun and full,
        memories, tokens = started(model), make_tokens(3, steps)
        expected, final = model(tokens, memories)
        # when tokens are fed to them one by one,
        decoding = Decoding(model, memories)
        logits = np.stack(
            [decoding.step(tokens[:, step]) for step in range(steps)], axis=1
        )
        # then logits and memories are those of the model.
        assert logits.dtype == dtype_of(expected)
        print(f"logits differ by up to {np.max(np.abs(logits - expected)):.1e}")
        np.testing.assert_allclose(logits, expected, rtol=0, atol=atol)
        assert_equal(model, decoding.memories(), final, atol)

    return check


class TestEveryToken:
    @pytest.mark.parametrize("content", ["hidden", "key_value"])
    def test_it_is_next_logits(
        self, of_format, started, make_tokens, assert_equal, content
    ):
        # Given lanes whose memories are empty, begun and full,
        model = of_format(content)
        memories, tokens = started(model), make_tokens(3, STEPS)
        decoding = Decoding(model, memories)
        for step in range(STEPS):
            # when a token is fed to each, then logits and memories are what
            # the model gives for it, at each step.
            logits = decoding.step(tokens[:, step])
            expected, memories = model.next_logits(
                tokens[:, step : step + 1], memories
            )
            np.testing.assert_allclose(logits, expected, rtol=0, atol=3e-5)
            if step % 7 == 0:
                assert_equal(model, decoding.memories(), memories, 3e-5)
        # At its end every slot was written three times.
        assert memories["position"].numpy().tolist() == [37, 40, 50]

    @pytest.mark.parametrize("content", ["hidden", "key_value"])
    @pytest.mark.parametrize("setting", SETTINGS)
    def test_it_is_the_model(
        self, of_format, assert_same_as_model, content, setting
    ):
        settings = SETTINGS[setting]
        atol = 1e-9 if "dtype" in settings else 3e-5
        assert_same_as_model(of_format(content, **settings), atol)

    @pytest.mark.parametrize(("content", "dtype"), FORMATS, **IDS)
    def test_whatever_memories_are_kept_in(
        self, of_format, assert_same_as_model, content, dtype
    ):
        # In float64, where no rounding falls to another side for noise.
        model = of_format(content, dtype, dtype="float64")
        assert_same_as_model(model, 1e-9)

    @pytest.mark.parametrize("content", ["hidden", "key_value"])
    @pytest.mark.parametrize(
        "spans", [(1,), (0,), (1, 0, 5), (11, 11), (0, 0)], **IDS
    )
    def test_whatever_the_spans_are(
        self, of_format, assert_same_as_model, content, spans
    ):
        model = of_format(content, "int8", spans=spans, dtype="float64")
        assert_same_as_model(model, 1e-9, steps=13)

    @pytest.mark.parametrize(("content", "dtype"), FORMATS, **IDS)
    def test_in_float32_most_lanes_are_the_same(
        self, of_format, make_tokens, content, dtype
    ):
        # Here the noise of 1e-6 can make a number fall to another integer,
        # from where on that lane is another, on any machine.
        model = of_format(content, dtype)
        tokens = make_tokens(7, STEPS)
        _, expected = model(tokens)
        logits, _ = model(tokens)
        decoding = Decoding(model, model.initial_memories(7))
        written = np.stack(
            [decoding.step(tokens[:, step]) for step in range(STEPS)], axis=1
        )
        lanes = np.max(np.abs(written - logits), axis=(1, 2))
        print(f"{content} {dtype}: {np.sort(lanes)}")
        assert np.median(lanes) < 1e-4
        memories = decoding.memories()
        for name, spec in model.memory_specs(7).items():
            assert dtype_of(memories[name]) == spec.dtype
            assert memories[name].shape == expected[name].shape

    def test_in_bfloat16(self, of_format, started, make_tokens):
        # Roundings in between differ; it must run, and not be far off.
        model = of_format(dtype="mixed_bfloat16")
        memories, tokens = started(model), make_tokens(3, STEPS)
        decoding = Decoding(model, memories)
        logits = [decoding.step(tokens[:, step]) for step in range(STEPS)]
        expected, final = model(tokens, memories)
        assert logits[0].dtype == "float32"
        difference = np.abs(np.stack(logits, axis=1) - expected)
        assert np.median(difference) < 0.05
        for name, value in decoding.memories().items():
            assert value.dtype == final[name].dtype

    def test_without_a_graph(self, of_format, started, make_tokens):
        model = of_format("key_value")
        memories, tokens = started(model), make_tokens(3, 13)
        decoder = RingDecoder(model, memories)
        state = decoder.state
        for step in range(13):
            logits, state = decoder.step(
                tf.constant(tokens[:, step]), state, tf.ones(3, tf.bool)
            )
        expected, _ = model(tokens, memories)
        np.testing.assert_allclose(logits, expected[:, -1], atol=3e-5)

    def test_the_memories_it_begins_with_stay(
        self, of_format, started, make_tokens
    ):
        # Rings are written in place; nobody else may hold them.
        for content in ("hidden", "key_value"):
            model = of_format(content)
            memories = started(model)
            copies = {name: np.array(memories[name]) for name in memories}
            decoder = RingDecoder(model, memories)
            state = decoder.state
            for token in make_tokens(3, 13).T:
                _, state = decoder.step(token, state, tf.ones(3, tf.bool))
            for name, value in memories.items():
                assert same_bits(value, copies[name])


class TestLanes:
    @pytest.mark.parametrize(("content", "dtype"), FORMATS, **IDS)
    def test_inactive_ones_freeze(
        self, of_format, started, make_tokens, content, dtype
    ):
        # Given lanes, empty, begun and full, that never go on; that go on for
        # 7 tokens; and that always do,
        model = of_format(content, dtype)
        positions = (0, 3, 13)
        memories = started(model, positions * 3)
        steps_of = np.repeat([0, 7, STEPS], 3)
        decoding = Decoding(model, memories)
        tokens = make_tokens(9, STEPS)
        for step in range(STEPS):
            # when they are fed nevertheless,
            decoding.step(tokens[:, step], step < steps_of)
            if step == 6:
                frozen = decoding.memories()
        after = decoding.memories()
        # then the memories of those that never went on are what they were,
        for name, value in memories.items():
            assert same_bits(after[name][:3], value[:3])
        # those of the others stay, bit for bit, as they stopped,
        for name, value in frozen.items():
            assert same_bits(after[name][3:6], value[3:6])
            assert not same_bits(after[name][6:], value[6:])
        # and positions count what was fed.
        position = np.array(positions * 3) + steps_of
        assert after["position"].numpy().tolist() == position.tolist()
        assert after["position"].dtype == tf.int32

    @pytest.mark.parametrize(("content", "dtype"), FORMATS, **IDS)
    def test_they_may_rest_and_go_on(
        self, of_format, started, make_tokens, assert_equal, content, dtype
    ):
        # Given lanes that each go on at steps of their own,
        model = of_format(content, dtype, dtype="float64")
        memories = started(model)
        decoding = Decoding(model, memories)
        tokens = make_tokens(3, STEPS)
        active = np.random.default_rng(3).random((3, STEPS)) < 0.6
        logits = np.stack(
            [
                decoding.step(tokens[:, step], active[:, step])
                for step in range(STEPS)
            ],
            axis=1,
        )
        after = decoding.memories()
        for i in range(3):
            # then each is what its own tokens alone give.
            fed = tokens[i, active[i]][None]
            assert 11 < fed.shape[1] < STEPS
            expected, final = model(fed, lane(memories, i))
            np.testing.assert_allclose(
                logits[i, active[i]], expected[0], atol=1e-9
            )
            assert_equal(model, lane(after, i), final, 1e-9)

    def test_one_does_not_see_another(self, of_format, started, make_tokens):
        model = of_format()
        memories, tokens = started(model), make_tokens(3, 13)
        decoding = Decoding(model, memories)
        together = [decoding.step(tokens[:, step]) for step in range(13)]
        for i in range(3):
            alone = Decoding(model, lane(memories, i))
            for step in range(13):
                np.testing.assert_allclose(
                    alone.step(tokens[[i], step])[0],
                    together[step][i],
                    atol=3e-5,
                )

    @pytest.mark.parametrize(("content", "dtype"), FORMATS, **IDS)
    def test_position_zero_is_all_that_a_reset_takes(
        self, of_format, make_tokens, content, dtype
    ):
        # Slots that were never written may hold anything.
        model = of_format(content, dtype)
        fresh = model.initial_memories(2)
        garbage = {
            name: tf.fill(
                value.shape,
                tf.cast(
                    -128 if value.dtype == tf.int8 else np.nan, value.dtype
                ),
            )
            for name, value in fresh.items()
        }
        garbage["position"] = fresh["position"]
        tokens = make_tokens(2, 3)
        first, second = (Decoding(model, x) for x in (garbage, fresh))
        for token in tokens.T:
            assert same_bits(first.step(token), second.step(token))
        for name, value in second.memories().items():
            assert same_bits(first.memories()[name], value)

    @pytest.mark.parametrize("content", ["hidden", "key_value"])
    def test_no_lanes(self, of_format, content):
        for dtype in (None, "int8"):
            model = of_format(content, dtype)
            decoding = Decoding(model, model.initial_memories(0))
            logits = decoding.step(np.zeros([0], "int32"))
            assert logits.shape == (0, 19)
            memories = decoding.memories()
            for name, spec in model.memory_specs(0).items():
                assert memories[name].shape == spec.shape

    def test_the_last_position_stays_the_last(self, of_format, make_tokens):
        # As the model's: a negative one would empty every memory.
        model, last = of_format(), 2**31 - 1
        _, memories = model(make_tokens(2, 13))
        memories = {**memories, "position": tf.constant([last - 2, last])}
        decoding = Decoding(model, memories)
        for token in make_tokens(2, 7, seed=5).T:
            logits = decoding.step(token)
            expected, memories = model.next_logits(token[:, None], memories)
            np.testing.assert_allclose(logits, expected, atol=3e-5)
        after = decoding.memories()
        assert after["position"].numpy().tolist() == [last, last]


def test_a_model_without_same_length_is_refused(make_model):
    model = make_model(UNEVEN)
    message = "^model must have same_length=True; got a model without"
    with pytest.raises(ValueError, match=message):
        RingDecoder(model, model.initial_memories(2))


# Reads `job.npz`: a config, weights and tokens [B, S]. Writes `out.npz`.
JAX_WORKER = """
import json, sys
import keras
import numpy as np
import official_lrm as lrm
from official_lrm.models.ring_decoder import RingDecoder

# Drawing weights that the job replaces takes JAX seconds for each shape.
keras.initializers.RandomNormal.__call__ = (
    lambda self, shape, dtype=None, **kwargs: np.zeros(shape, dtype)
)
assert keras.backend.backend() == "jax"
import jax

with np.load(sys.argv[1] + "/job.npz", allow_pickle=False) as file:
    job = dict(file)
config = json.loads(str(job["config"]))
plain = lrm.TransformerXLLanguageModel.from_config(config)
plain.set_weights([job[f"weight_{i}"] for i in range(len(plain.weights))])
tokens, out = job["tokens"], {}
for content, dtype in json.loads(str(job["formats"])):
    model = plain.with_spans(
        plain.spans, memory_format=content, memory_dtype=dtype
    )
    decoder = RingDecoder(model, model.initial_memories(len(tokens)))
    step, state, logits = jax.jit(decoder.step), decoder.state, []
    for i in range(tokens.shape[1]):
        here, state = step(tokens[:, i], state, job["active"][:, i])
        logits.append(np.array(here))
    out[f"{content}_{dtype}"] = np.stack(logits, axis=1)
    memories = decoder.memories(state)
    for name, spec in model.memory_specs(len(tokens)).items():
        memory = memories[name]
        assert memory.shape == spec.shape
        assert keras.backend.standardize_dtype(memory.dtype) == spec.dtype
    out[f"{content}_{dtype}_position"] = np.array(memories["position"])
np.savez(sys.argv[1] + "/out.npz", **out)
"""


def test_jax_computes_what_tensorflow_does(of_format, make_tokens, tmp_path):
    pytest.importorskip("jax")
    assert keras.backend.backend() == "tensorflow"
    # Given tokens, some of which are not to be read,
    model = of_format()
    tokens = make_tokens(2, STEPS)
    active = np.random.default_rng(3).random((2, STEPS)) < 0.9
    formats = [("hidden", None), ("key_value", "int8")]
    np.savez(
        tmp_path / "job.npz",
        config=json.dumps(model.get_config()),
        formats=json.dumps(formats),
        tokens=tokens,
        active=active,
        **{f"weight_{i}": w for i, w in enumerate(model.get_weights())},
    )
    # when JAX decodes them,
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
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        outputs = dict(file)
    for content, dtype in formats:
        same = of_format(content, dtype)
        decoding = Decoding(same, same.initial_memories(2))
        # then the logits are TensorFlow's; a rounding that falls to the other
        # side is worth 0.1.
        atol = 0.3 if dtype else 3e-5
        for step in range(STEPS):
            logits = decoding.step(tokens[:, step], active[:, step])
            here = active[:, step]
            np.testing.assert_allclose(
                outputs[f"{content}_{dtype}"][here, step],
                logits[here],
                rtol=0,
                atol=atol,
            )
        assert np.array_equal(
            outputs[f"{content}_{dtype}_position"], np.sum(active, axis=1)
        )
