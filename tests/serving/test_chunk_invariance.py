"""Exported with `same_length`, a text may be cut into calls in any way."""

import types

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.serving import ServingModule

SPANS = (5, 0, 31)
LENGTH, WAYS, LANES = 500, 50, 3
TOLERANCE = 1e-4
SIGNATURES = (
    "predict",
    "predict_ragged",
    "session_step",
    "session_step_ragged",
)


def random_cuts(rng):
    """Lengths of some consecutive pieces, 500 tokens in all.

    Of any number, and more often of a few tokens than of many: pieces of one
    token and pieces longer than a span both occur in nearly every text.
    """
    lengths, longest = [], rng.choice([151, 211, 499])
    while sum(lengths) < LENGTH:
        length = int(longest ** rng.random())
        lengths.append(min(length, LENGTH - sum(lengths)))
    return rng.permutation(lengths).tolist()


def ways_of_cutting(seed):
    ways = [[1] * LENGTH]
    rng = np.random.default_rng(seed)
    while len(ways) < WAYS:
        ways.append(random_cuts(rng))
    return ways


@pytest.fixture(scope="module", params=["hidden", "key_value"])
def export(request, make_model, tmp_path_factory):
    """The export, and what a text gives that is sent in one call."""
    model = make_model(SPANS, same_length=True, memory_format=request.param)
    folder = str(tmp_path_factory.mktemp(request.param))
    module = ServingModule(model, num_sessions=LANES + 2)
    tf.saved_model.save(
        module, folder, signatures=module.signatures(SIGNATURES)
    )
    loaded = tf.saved_model.load(folder)

    def call(name, **inputs):
        inputs = {key: tf.constant(value) for key, value in inputs.items()}
        outputs = loaded.signatures[name](**inputs)
        outputs = {key: value.numpy() for key, value in outputs.items()}
        return outputs.pop("logits"), outputs

    rng = np.random.default_rng(3)
    tokens = rng.integers(0, 23, [LANES, LENGTH], dtype="int32")
    fresh = {
        name: value.numpy()
        for name, value in model.initial_memories(LANES).items()
    }
    logits, memories = call("predict", tokens=tokens, **fresh)
    # It is the model, and longer than all that it remembers.
    np.testing.assert_allclose(logits, model(tokens)[0], atol=1e-5)
    assert memories["position"].tolist() == [LENGTH] * LANES
    assert len(memories) == (3 if request.param == "hidden" else 5)
    return types.SimpleNamespace(
        format=request.param,
        model=model,
        loaded=loaded,
        call=call,
        tokens=tokens,
        fresh=fresh,
        logits=logits,
        memories=memories,
    )


def stored_memories(export, session_id):
    """Reads sessions' memories where the server keeps them, oldest first."""
    store = export.loaded._store

    def read(resource, dtype):
        return tf.raw_ops.ReadVariableOp(
            resource=resource.resource_handle, dtype=dtype
        ).numpy()

    ids = read(store._ids, tf.int64).tolist()
    slots = [ids.index(value) for value in session_id]
    position = read(store._positions, tf.int32)[slots]
    memories = {"position": position}
    for name, spec in export.model.memory_specs().items():
        if name == "position":
            continue
        span = spec.shape[1]
        rings = read(store._rings[name], tf.as_dtype(spec.dtype))
        rings = rings.reshape(-1, *spec.shape[1:])[slots]
        memories[name] = np.stack(
            [
                np.roll(ring, -(at % span), axis=0)
                for ring, at in zip(rings, position, strict=True)
            ]
        )
    return memories


class _Worst:
    """Asserts, and keeps the largest deviation."""

    def __init__(self, export):
        self.export = export
        self.logits = self.memories = 0

    def check(self, logits, memories):
        deviation = np.max(np.abs(logits - self.export.logits))
        assert deviation < TOLERANCE
        self.logits = max(self.logits, deviation)
        assert memories.keys() == self.export.memories.keys()
        for name, value in self.export.memories.items():
            assert memories[name].dtype == value.dtype
            deviation = np.max(np.abs(memories[name] - value))
            assert deviation < TOLERANCE, name
            self.memories = max(self.memories, deviation)

    def show(self, name):
        print(
            f"{name}, {self.export.format}: logits differ by up to "
            f"{self.logits:.1e}, memories by {self.memories:.1e}"
        )


def test_the_ways_of_cutting_are_what_they_should_be():
    ways = ways_of_cutting(seed=5)
    assert len(ways) == len({tuple(way) for way in ways}) == WAYS
    assert all(sum(way) == LENGTH for way in ways)
    assert sum(1 in way for way in ways) > 30
    assert sum(max(way) > max(SPANS) for way in ways) > 15
    assert sum(max(way) < min(filter(None, SPANS)) for way in ways) >= 1


def test_carried(export):
    worst = _Worst(export)
    for way in ways_of_cutting(seed=5):
        memories, logits, start = export.fresh, [], 0
        for length in way:
            piece = export.tokens[:, start : start + length]
            written, memories = export.call("predict", tokens=piece, **memories)
            logits.append(written)
            start += length
        worst.check(np.concatenate(logits, axis=1), memories)
    worst.show("carried")


def test_resident(export):
    worst = _Worst(export)
    for seed, way in enumerate(ways_of_cutting(seed=7)):
        # Position 0 starts a session, or starts it again.
        session_id = np.arange(LANES) - seed % 2
        position, logits, start = np.zeros(LANES, "int32"), [], 0
        for length in way:
            piece = export.tokens[:, start : start + length]
            written, outputs = export.call(
                "session_step",
                tokens=piece,
                session_id=session_id,
                position=position,
            )
            position = outputs["position"]
            logits.append(written)
            start += length
        worst.check(
            np.concatenate(logits, axis=1), stored_memories(export, session_id)
        )
    worst.show("resident")


class _Ragged:
    """Lanes that are cut in ways of their own, padded to the longest piece."""

    def __init__(self, export, seed):
        self.export = export
        self.rng = np.random.default_rng(seed)
        self.ways = [random_cuts(self.rng) for _ in range(LANES)]
        self.logits = np.full_like(export.logits, np.nan)

    def pieces(self):
        """Tokens and lengths of each call; a lane that has ended sends 0."""
        start = np.zeros(LANES, int)
        for i in range(max(map(len, self.ways))):
            lengths = [way[i] if i < len(way) else 0 for way in self.ways]
            tokens = self.rng.integers(
                0, 23, [LANES, max(lengths)], dtype="int32"
            )
            for lane, length in enumerate(lengths):
                text = self.export.tokens[lane, start[lane] :]
                tokens[lane, :length] = text[:length]
            yield tokens, np.array(lengths, "int32")
            for lane, length in enumerate(lengths):
                at = slice(start[lane], start[lane] + length)
                self.logits[lane, at] = self.written[lane, :length]
            start += lengths


def test_carried_and_ragged(export):
    worst = _Worst(export)
    for seed in range(WAYS):
        ragged, memories = _Ragged(export, seed), export.fresh
        for tokens, lengths in ragged.pieces():
            ragged.written, memories = export.call(
                "predict_ragged", tokens=tokens, lengths=lengths, **memories
            )
        worst.check(ragged.logits, memories)
    worst.show("carried and ragged")


def test_resident_and_ragged(export):
    worst = _Worst(export)
    for seed in range(WAYS):
        ragged = _Ragged(export, seed)
        session_id = np.arange(LANES) - 2**62
        position = np.zeros(LANES, "int32")
        for tokens, lengths in ragged.pieces():
            ragged.written, outputs = export.call(
                "session_step_ragged",
                tokens=tokens,
                lengths=lengths,
                session_id=session_id,
                position=position,
            )
            position = outputs["position"]
        worst.check(ragged.logits, stored_memories(export, session_id))
    worst.show("resident and ragged")


def test_it_takes_same_length(export):
    # Without, the first way of cutting would have been found out.
    model = export.model.with_spans(SPANS, same_length=False)
    memories, logits = None, []
    for start in range(0, 100, 7):
        piece = export.tokens[:, start : min(start + 7, 100)]
        written, memories = model(piece, memories)
        logits.append(written)
    logits = np.concatenate(logits, axis=1)
    assert np.max(np.abs(logits - export.logits[:, :100])) > 0.1


class TestGenerate:
    """Cuts of prompts and of what is generated."""

    # Lanes that differ in everything.
    SAMPLING = {
        "temperature": np.array([5, 3, 0], "float32"),
        "top_k": np.array([0, 7, 3], "int32"),
        "top_p": np.array([0.9, 1, 1], "float32"),
        "seed": np.array([2**40 + 5, -3, 11], "int64"),
        "stop_token": np.full(LANES, -1, "int32"),
    }
    # What each call writes; 0 = it reads all of the prompt but a token.
    CUTS = [(29,), (1,) * 29, (5, 1, 23), (0, 13, 0, 16), (0, 0, 0, 27, 2)]

    @pytest.fixture(
        scope="class",
        params=[
            ("key_value", None, "float32"),
            # In float64, where no rounding falls to another side for noise.
            ("key_value", "int8", "float64"),
            ("hidden", "bfloat16", "float64"),
        ],
        ids=lambda param: param[0] if param[1] is None else param[1],
    )
    def generator(self, request, make_model, tmp_path_factory):
        content, memory_dtype, dtype = request.param
        model = make_model(
            memory_format=content, memory_dtype=memory_dtype, dtype=dtype
        )
        folder = str(tmp_path_factory.mktemp(content))
        module = ServingModule(model, num_sessions=LANES)
        signatures = module.signatures(["generate", "session_generate"])
        tf.saved_model.save(module, folder, signatures=signatures)
        loaded = tf.saved_model.load(folder)
        fresh = {
            name: value.numpy()
            for name, value in model.initial_memories(LANES).items()
        }
        return types.SimpleNamespace(model=model, loaded=loaded, fresh=fresh)

    @pytest.fixture(params=["generate", "session_generate"])
    def run(self, request, generator):
        """Runs a prompt through calls, from a state on."""

        def call(tokens, count, state):
            inputs = {
                "tokens": tokens,
                "max_new_tokens": np.full(LANES, count, "int32"),
                **self.SAMPLING,
                **state,
            }
            outputs = generator.loaded.signatures[request.param](
                **{key: tf.constant(value) for key, value in inputs.items()}
            )
            outputs = {key: value.numpy() for key, value in outputs.items()}
            assert outputs.pop("generated_lengths").tolist() == [count] * LANES
            return outputs.pop("generated"), outputs

        def run(tokens, cuts):
            state = generator.fresh
            if request.param == "session_generate":
                state = {
                    "session_id": np.array([5, -7, 0]),
                    "position": np.zeros(LANES, "int32"),
                }
            generated = []
            for count in cuts:
                feed, tokens = tokens, tokens[:, -1:]
                if count == 0 and feed.shape[1] > 1:
                    half = (feed.shape[1] + 1) // 2
                    feed, tokens = feed[:, :half], feed[:, half:]
                elif count == 0:
                    continue
                written, state = call(feed, count, state)
                generated.append(written)
                if count:
                    tokens = written[:, -1:]
            # What is written next shows what the memories are.
            probe, _ = call(tokens, 13, state)
            return np.concatenate(generated, axis=1), probe, state["position"]

        return run

    @pytest.fixture(scope="class")
    def expected(self, generator):
        """What the first of all calls gave."""
        return {}

    def test_cuts_do_not_matter(self, run, make_tokens, expected):
        # A prompt longer than a span, and 29 tokens after it.
        tokens = make_tokens(LANES, 13)
        for cuts in self.CUTS:
            generated, probe, position = run(tokens, cuts)
            assert generated.shape == (LANES, 29)
            assert position.tolist() == [13 + 28] * LANES
            # Carried or resident, in one call or more: it is all the same.
            first = expected.setdefault("first", (generated, probe))
            assert generated.tolist() == first[0].tolist()
            assert probe.tolist() == first[1].tolist()
        # Not one token over and over, which any memory would give.
        assert all(len(set(row.tolist())) > 9 for row in generated[:2])
