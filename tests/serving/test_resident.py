"""Tests of the sessions of an export, whose memories stay in the server."""

import concurrent.futures
import threading
import types

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.serving import ServingModule

SLOTS = 7
SIGNATURES = (
    "generate",
    "session_step",
    "session_step_ragged",
    "session_generate",
    "session_end",
)
INT64 = np.iinfo("int64")
INVALID = tf.errors.InvalidArgumentError
UNKNOWN = tf.errors.FailedPreconditionError


def make_sampling(lanes, count=5, **changes):
    return {
        "max_new_tokens": np.full(lanes, count, "int32"),
        "temperature": np.full(lanes, 3, "float32"),
        "top_k": np.zeros(lanes, "int32"),
        "top_p": np.ones(lanes, "float32"),
        "seed": np.arange(lanes, dtype="int64"),
        "stop_token": np.full(lanes, -1, "int32"),
        **changes,
    }


@pytest.fixture(scope="module")
def resident(make_model, tmp_path_factory):
    model = make_model()
    path = str(tmp_path_factory.mktemp("resident"))
    module = ServingModule(model, num_sessions=SLOTS)
    tf.saved_model.save(module, path, signatures=module.signatures(SIGNATURES))
    return types.SimpleNamespace(
        model=model, path=path, loaded=tf.saved_model.load(path)
    )


class Server:
    """The sessions of a runtime; ends those that a test has used."""

    def __init__(self, call):
        self._call, self._used = call, set()

    def call(self, name, session_id, **inputs):
        self._used.update(session_id)
        inputs["session_id"] = np.array(session_id, "int64")
        if "position" in inputs:
            inputs["position"] = np.array(inputs["position"], "int32")
        return self._call(name, inputs)

    def step(self, session_id, position, tokens):
        """Logits and positions after."""
        outputs = self.call(
            "session_step", session_id, position=position, tokens=tokens
        )
        assert outputs.keys() == {"logits", "session_id", "position"}
        assert outputs["session_id"].tolist() == list(session_id)
        return outputs["logits"], outputs["position"].tolist()

    def end(self, session_id):
        return self.call("session_end", session_id)["ended"].tolist()

    def knows(self, session_id, position):
        """Whether each is at its position; asks by what is refused anyway."""
        known = []
        for value, at in zip(session_id, position, strict=True):
            with pytest.raises((INVALID, UNKNOWN)) as caught:
                self.step([value], [at + 1], np.zeros([1, 0], "int32"))
            message = caught.value.message
            known.append(
                caught.type is INVALID and f"[are at] [{at}]" in message
            )
        return known

    def close(self):
        self.end(sorted(self._used))


def call_loaded(loaded):
    def call(name, inputs):
        inputs = {key: tf.constant(value) for key, value in inputs.items()}
        outputs = loaded.signatures[name](**inputs)
        return {key: value.numpy() for key, value in outputs.items()}

    return call


@pytest.fixture(params=["loaded", "session"])
def server(request, resident, open_session):
    """Sessions in either of two runtimes."""
    if request.param == "session":
        server = Server(open_session(resident).call)
    else:
        server = Server(call_loaded(resident.loaded))
    yield server
    server.close()


@pytest.fixture
def loaded(resident):
    server = Server(call_loaded(resident.loaded))
    yield server
    server.close()


@pytest.fixture
def bits(resident):
    """All that a loaded export keeps of its sessions, bit for bit."""

    def read():
        store = resident.loaded._store
        resources = {
            "ids": (store._ids, tf.int64),
            "positions": (store._positions, tf.int32),
            "versions": (store._versions, tf.int64),
            **{name: (ring, tf.float32) for name, ring in store._rings.items()},
        }
        return {
            name: tf.raw_ops.ReadVariableOp(
                resource=resource.resource_handle, dtype=dtype
            )
            .numpy()
            .tobytes()
            for name, (resource, dtype) in resources.items()
        }

    return read


class TestSteps:
    def test_segment_by_segment_they_are_the_model(
        self, resident, server, make_tokens
    ):
        # Given sessions of any 64-bit integers,
        session_id = [0, -1, INT64.max, INT64.min, 5]
        position = [0] * 5
        memories = resident.model.initial_memories(5)
        for seed, length in enumerate((7, 1, 13, 0, 1, 5, 31)):
            tokens = make_tokens(5, length, seed)
            # when they go on, from where each response says they are,
            logits, position = server.step(session_id, position, tokens)
            # then the logits are those of a client that carries memories.
            expected, memories = resident.model(tokens, memories)
            np.testing.assert_allclose(logits, expected, atol=1e-5)
            assert position == memories["position"].numpy().tolist()

    def test_lanes_are_sessions_in_any_order(
        self, resident, server, make_tokens
    ):
        # Given sessions at different positions, of which some are new,
        model = resident.model
        texts = dict(zip("abc", make_tokens(3, 40), strict=True))
        ids = dict(zip("abcd", (17, -4, 3, 11), strict=True))
        server.step([ids["a"]], [0], texts["a"][None, :13])
        server.step([ids["b"]], [0], texts["b"][None, :3])
        # when some of them are in a call, known and new ones,
        tokens = np.stack([texts["c"][:7], texts["a"][13:20]])
        first, position = server.step([ids["c"], ids["a"]], [0, 13], tokens)
        assert position == [7, 20]
        tokens = np.stack([texts["b"][3:8], texts["c"][7:12]])
        second, position = server.step([ids["b"], ids["c"]], [3, 7], tokens)
        assert position == [8, 12]

        # then each goes on from its own memory.
        def alone(name, *cuts):
            memories, start = None, 0
            for length in cuts:
                piece = texts[name][None, start : start + length]
                logits, memories = model(piece, memories)
                start += length
            return logits[0]

        np.testing.assert_allclose(first[0], alone("c", 7), atol=1e-5)
        np.testing.assert_allclose(first[1], alone("a", 13, 7), atol=1e-5)
        np.testing.assert_allclose(second[0], alone("b", 3, 5), atol=1e-5)
        np.testing.assert_allclose(second[1], alone("c", 7, 5), atol=1e-5)

    def test_position_zero_starts_again(self, resident, server, make_tokens):
        tokens = make_tokens(2, 13)
        server.step([5, 3], [0, 0], tokens)
        logits, position = server.step([3, 5], [0, 13], tokens)
        assert position == [13, 26]
        fresh, _ = resident.model(tokens)
        np.testing.assert_allclose(logits[0], fresh[0], atol=1e-5)
        assert np.max(np.abs(logits[1] - fresh[1])) > 1e-2

    def test_no_lanes(self, server, make_tokens):
        server.step([3], [0], make_tokens(1, 7))
        logits, position = server.step([], [], make_tokens(0, 5))
        assert logits.shape == (0, 5, 23)
        assert position == []
        assert server.end([]) == []
        assert server.knows([3], [7]) == [True]

    def test_of_ragged_lanes(self, resident, server, make_tokens):
        # Given sessions of which each sends as many tokens as it has,
        tokens = make_tokens(3, 13)
        position, memories = [0, 0, 0], resident.model.initial_memories(3)
        for lengths in ([13, 0, 4], [1, 7, 0], [3, 13, 2], [0, 1, 9]):
            lengths = np.array(lengths, "int32")
            feed = tokens[:, : max(lengths)]
            outputs = server.call(
                "session_step_ragged",
                [3, 11, -5],
                position=position,
                tokens=feed,
                lengths=lengths,
            )
            expected, memories = resident.model(feed, memories, lengths=lengths)
            # then what follows the padding does not depend on it.
            counts = np.arange(max(lengths)) < lengths[:, None]
            np.testing.assert_allclose(
                outputs["logits"][counts], np.array(expected)[counts], atol=1e-5
            )
            position = outputs["position"].tolist()
            assert position == memories["position"].numpy().tolist()
        assert position == [17, 21, 15]


class TestRefusals:
    """A refused request leaves all sessions as they were."""

    @pytest.fixture
    def started(self, server, make_tokens):
        server.step([3, 11], [0, 0], make_tokens(2, 13))
        return server

    @pytest.fixture
    def refused(self, started, make_tokens):
        def check(error, name, session_id, position, tokens=None, **inputs):
            if tokens is None:
                tokens = make_tokens(len(session_id), 7)
            with pytest.raises(error) as caught:
                started.call(
                    "session_step" if not inputs else "session_step_ragged",
                    session_id,
                    position=position,
                    tokens=tokens,
                    **inputs,
                )
            assert name in caught.value.message
            assert started.knows([3, 11], [13, 13]) == [True, True]
            return caught.value.message

        return check

    @pytest.mark.parametrize(
        "position", [6, 12, 14, 20, 2**31 - 1], ids="at{}".format
    )
    def test_positions_that_are_not_the_sessions(self, refused, position):
        # Repeated, skipped, or of another session.
        message = refused(
            INVALID, "position must be that of the session", [3], [position]
        )
        assert f"[are at] [13] [; got] [{position}]" in message

    def test_a_step_that_was_sent_twice(self, resident, started, make_tokens):
        tokens = make_tokens(1, 7, seed=5)
        started.step([3], [13], tokens)
        with pytest.raises(INVALID, match="position must be that of"):
            started.step([3], [13], tokens)
        logits, position = started.step([3], [20], tokens)
        assert position == [27]
        memories = None
        for piece in (make_tokens(2, 13)[:1], tokens, tokens):
            expected, memories = resident.model(piece, memories)
        np.testing.assert_allclose(logits, expected, atol=1e-5)

    def test_one_wrong_position_of_several(self, refused):
        message = refused(INVALID, "position", [5, 3, 11], [0, 13, 12])
        assert "[5 3 11]" in message
        assert "[0 13 12]" in message

    def test_unknown_sessions(self, refused):
        refused(UNKNOWN, "session_id is unknown", [4], [13])
        refused(UNKNOWN, "session_id is unknown", [3, 4], [13, 13])
        refused(UNKNOWN, "session_id is unknown", [3, 4, 5], [13, 7, 0])

    def test_a_refused_request_starts_nothing(self, refused):
        refused(INVALID, "position", [5, 3], [0, 7])
        refused(UNKNOWN, "session_id", [5], [7])

    def test_ended_sessions(self, started, make_tokens):
        assert started.end([11, 4]) == [True, False]
        with pytest.raises(UNKNOWN, match="session_id is unknown, was evicted"):
            started.step([11], [13], make_tokens(1, 7))
        assert started.end([11]) == [False]
        assert started.knows([3], [13]) == [True]
        assert started.step([11], [0], make_tokens(1, 7))[1] == [7]

    def test_a_session_twice(self, refused):
        refused(INVALID, "session_id must name each", [3, 11, 3], [13, 13, 13])
        refused(INVALID, "session_id must name each", [5, 5], [0, 0])
        refused(INVALID, "session_id must name each", [3, 3], [0, 13])

    def test_more_sessions_than_are_kept(self, refused):
        ids = list(range(20, 20 + SLOTS + 1))
        refused(INVALID, f"session_id must name at most the {SLOTS}", ids, ids)
        refused(
            INVALID,
            f"session_id must name at most the {SLOTS}",
            ids,
            [0] * len(ids),
        )

    @pytest.mark.parametrize("lanes", [1, 3])
    def test_another_number_of_lanes(self, refused, make_tokens, lanes):
        # Nothing is broadcast.
        refused(
            INVALID,
            "session_id must have as many lanes as tokens",
            [3, 11],
            [13, 13],
            make_tokens(lanes, 7),
        )
        refused(
            INVALID,
            "position must have as many lanes as tokens",
            [3, 11],
            [13] * lanes,
        )
        refused(
            INVALID,
            "lengths must have as many lanes as tokens",
            [3, 11],
            [13, 13],
            lengths=np.ones(lanes, "int32"),
        )

    @pytest.mark.parametrize("token", [-1, 23, 2**31 - 1])
    def test_a_token_out_of_range_in_one_lane(
        self, refused, make_tokens, token
    ):
        tokens = make_tokens(3, 7)
        tokens[1, 5] = token
        refused(
            INVALID,
            "tokens must be from 0 to 22",
            [3, 5, 11],
            [13, 0, 13],
            tokens,
        )

    @pytest.mark.parametrize("length", [-1, 8])
    def test_lengths_out_of_range(self, refused, length):
        refused(
            INVALID,
            "lengths must be from 0 to",
            [3, 11],
            [13, 13],
            lengths=np.array([7, length], "int32"),
        )

    @pytest.mark.parametrize("position", [-1, -(2**31)])
    def test_negative_positions(self, refused, position):
        refused(
            INVALID, "position must not be negative", [3, 11], [13, position]
        )

    def test_not_a_bit_changes(self, loaded, bits, make_tokens):
        tokens = make_tokens(2, 13)
        loaded.step([3, 11], [0, 0], tokens)
        before = bits()
        broken = np.where(np.eye(2, 13, dtype="bool"), 23, tokens)
        for session_id, position, feed in (
            ([3, 11], [13, 12], tokens),
            ([3, 11], [13, 13], broken),
            ([5, 11], [0, 13], broken),
            ([3, 4], [13, 13], tokens),
            ([3, 3], [13, 13], tokens),
            ([3, 11], [13, 13], tokens[:1]),
        ):
            with pytest.raises((INVALID, UNKNOWN)):
                loaded.step(session_id, position, feed)
            assert bits() == before
        # And so does a step change them.
        loaded.step([3, 11], [13, 13], tokens)
        assert all(
            bits()[name] != value
            for name, value in before.items()
            if name != "ids"
        )


class TestEviction:
    TOKENS = np.arange(7, dtype="int32")[None]

    def start(self, server, *session_id):
        for value in session_id:
            server.step([value], [0], self.TOKENS)

    def test_the_least_recently_used_goes_first(self, server):
        # Given as many sessions as are kept, 0 to 6, used in another order,
        self.start(server, *range(SLOTS))
        order = [3, 0, 5, 1, 6, 2, 4]
        for value in order:
            server.step([value], [7], self.TOKENS)
        kept = dict.fromkeys(order, 14)
        for i in range(SLOTS - 1):
            # when one more is started,
            self.start(server, 100 + i)
            # then it takes the place of the one used the longest time ago,
            with pytest.raises(UNKNOWN, match="session_id is unknown, was"):
                server.step([order[i]], [14], self.TOKENS)
            del kept[order[i]]
            kept[100 + i] = 7
            # and all others are there still; looking does not count as use.
            assert all(server.knows(kept, kept.values()))

    def test_restarting_is_using(self, server):
        self.start(server, *range(SLOTS), 0, SLOTS)
        with pytest.raises(UNKNOWN):
            server.step([1], [7], self.TOKENS)
        server.step([0], [7], self.TOKENS)

    def test_free_slots_are_taken_first(self, server):
        self.start(server, *range(SLOTS))
        # The one used last is ended: no other has to go.
        assert server.end([SLOTS - 1]) == [True]
        self.start(server, 50)
        known = [*range(SLOTS - 1), 50]
        assert all(server.knows(known, [7] * SLOTS))

    def test_a_batch_evicts_none_of_its_own(self, resident, server):
        # Given sessions of which the oldest go on beside new ones, more than
        # there are free slots,
        texts = np.random.default_rng(3).integers(
            0, 23, [SLOTS, 14], dtype="int32"
        )
        for i in range(SLOTS - 1):
            server.step([i], [0], texts[[i], :7])
        session_id, position = [70, 0, 71, 1, 72], [0, 7, 0, 7, 0]
        lanes = [0, 0, 1, 1, 2]
        tokens = texts[lanes, 7:]
        # when they are in one call,
        logits, after = server.step(session_id, position, tokens)
        # then it is the next oldest that go,
        assert after == [7, 14, 7, 14, 7]
        assert server.knows([4, 5, *session_id], [7, 7, *after]) == [True] * 7
        assert server.knows([2, 3], [7, 7]) == [False, False]
        # and known ones went on.
        _, memories = resident.model(texts[[0, 1], :7])
        expected, _ = resident.model(texts[[0, 1], 7:], memories)
        np.testing.assert_allclose(logits[[1, 3]], expected, atol=1e-5)
        expected, _ = resident.model(texts[[0, 1, 2], 7:])
        np.testing.assert_allclose(logits[[0, 2, 4]], expected, atol=1e-5)

    def test_a_batch_may_take_all(self, server):
        self.start(server, *range(SLOTS))
        new = [6, *range(60, 60 + SLOTS - 1)]
        tokens = np.repeat(self.TOKENS, SLOTS, axis=0)
        _, after = server.step(new, [7] + [0] * (SLOTS - 1), tokens)
        assert all(server.knows(new, after))
        assert not any(server.knows(range(6), [7] * 6))


class TestGenerate:
    def test_it_is_generate(self, resident, server, make_tokens):
        # Given sessions at different positions, and memories of the same,
        model, carried = resident.model, call_loaded(resident.loaded)
        ids, memories = [3, -7, 11], []
        for value, length in zip(ids, (0, 3, 13), strict=True):
            memory = model.initial_memories(1)
            if length:
                tokens = make_tokens(1, length, seed=length)
                _, memory = model(tokens, memory)
                server.step([value], [0], tokens)
            memories.append(memory)
        state = {
            name: np.concatenate(
                [np.array(memory[name]) for memory in memories]
            )
            for name in memories[0]
        }
        position = state["position"].tolist()
        assert position == [0, 3, 13]
        tokens = make_tokens(3, 7)
        for counts in ([5, 0, 17], [0, 0, 0], [1, 9, 2]):
            sampling = make_sampling(
                3, max_new_tokens=np.array(counts, "int32")
            )
            # when both write, time after time,
            outputs = server.call(
                "session_generate",
                ids,
                position=position,
                tokens=tokens,
                **sampling,
            )
            expected = carried(
                "generate", {"tokens": tokens, **state, **sampling}
            )
            # then they write the same, and see the same afterwards.
            assert outputs.keys() == {
                *("generated", "generated_lengths", "session_id", "position")
            }
            for name in ("generated", "generated_lengths", "position"):
                assert outputs[name].tolist() == expected[name].tolist()
            assert outputs["generated_lengths"].tolist() == counts
            state = {name: expected[name] for name in state}
            position = outputs["position"].tolist()
        logits, _ = server.step(ids, position, tokens)
        expected, _ = model(tokens, state)
        np.testing.assert_allclose(logits, expected, atol=1e-4)

    @pytest.mark.parametrize(
        ("change", "name"),
        [
            ({"temperature": np.array([1, -1], "float32")}, "temperature"),
            ({"top_p": np.array([0, 1], "float32")}, "top_p"),
            ({"max_new_tokens": np.array([3, -1], "int32")}, "max_new_tokens"),
            ({"seed": np.zeros(1, "int64")}, "seed"),
            ({"tokens": np.zeros([2, 0], "int32")}, "tokens"),
            ({"tokens": np.array([[3, 5], [23, 0]], "int32")}, "tokens"),
            ({"position": [13, 7]}, "position"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_what_it_refuses_changes_nothing(
        self, server, make_tokens, change, name
    ):
        server.step([3, 11], [0, 0], make_tokens(2, 13))
        inputs = {
            "position": [13, 13],
            "tokens": make_tokens(2, 5),
            **make_sampling(2),
            **change,
        }
        with pytest.raises(INVALID, match=f"{name} must "):
            server.call("session_generate", [3, 11], **inputs)
        assert server.knows([3, 11], [13, 13]) == [True, True]

    def test_unknown_sessions(self, server, make_tokens):
        with pytest.raises(UNKNOWN, match="session_id is unknown"):
            server.call(
                "session_generate",
                [3],
                position=[13],
                tokens=make_tokens(1, 5),
                **make_sampling(1),
            )


class TestThreads:
    def test_of_racing_writers_one_succeeds(
        self, resident, server, make_tokens
    ):
        # Given a session and its twin, and others,
        tokens = make_tokens(100, 5)
        first = make_tokens(3, 13, seed=7)
        server.step([3, 4, 11], [0, 0, 0], first[[0, 0, 1]])
        barrier = threading.Barrier(100)

        def write(i):
            barrier.wait()
            try:
                return i, *server.step([3], [13], tokens[[i]])
            except tf.errors.OpError as error:
                return error

        # when 100 requests want to write its next tokens, each others,
        with concurrent.futures.ThreadPoolExecutor(100) as pool:
            results = list(pool.map(write, range(100)))
        # then one does,
        written = [x for x in results if isinstance(x, tuple)]
        assert len(written) == 1
        winner, logits, position = written[0]
        assert position == [18]
        # all others are told so,
        errors = [x for x in results if not isinstance(x, tuple)]
        assert len(errors) == 99
        assert {type(error) for error in errors} == {INVALID}
        assert all("position" in error.message for error in errors)
        # the session is where that one step leads, bit for bit,
        twin, _ = server.step([4], [13], tokens[[winner]])
        assert logits.tobytes() == twin.tobytes()
        probe = make_tokens(1, 31, seed=5)
        after, _ = server.step([3], [18], probe)
        expected, _ = server.step([4], [18], probe)
        assert after.tobytes() == expected.tobytes()
        # and so are others where they were.
        other, _ = server.step([11], [13], probe)
        _, memories = resident.model(first[[1]])
        expected, _ = resident.model(probe, memories)
        np.testing.assert_allclose(other, expected, atol=1e-5)

    def test_racing_starts(self, server, make_tokens):
        # One slot is taken, not one by each.
        tokens = make_tokens(20, 5)
        server.step([11], [0], tokens[:1])
        barrier = threading.Barrier(20)

        def start(i):
            barrier.wait()
            try:
                return server.step([3], [0], tokens[[i]])[1]
            except INVALID as error:
                assert "position" in error.message
                return None

        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            results = list(pool.map(start, range(20)))
        # A start that comes after another is a restart.
        assert [5] in results
        assert server.knows([3, 11], [5, 5]) == [True, True]
        ids = list(range(30, 30 + SLOTS - 2))
        server.step(ids, [0] * len(ids), make_tokens(len(ids), 5))
        assert server.knows([11], [5]) == [True]

    def test_sessions_do_not_disturb_each_other(self, resident, server):
        # Given 6 sessions and what each is when it is alone,
        rng = np.random.default_rng(3)
        texts = rng.integers(0, 23, [6, 300], dtype="int32")
        cuts = [np.sort(rng.choice(300, 30, replace=False)) for _ in range(6)]

        def run(i, session_id):
            logits, position = [], [0]
            for piece in np.split(texts[i], cuts[i]):
                written, position = server.step(
                    [session_id], position, piece[None]
                )
                logits.append(written)
            return np.concatenate(logits, axis=1)

        alone = [run(i, 100) for i in range(6)]
        server.end([100])
        # when 6 threads run them at once,
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            together = list(pool.map(run, range(6), range(6)))
        # then each gives what it gave, bit for bit.
        for first, second in zip(alone, together, strict=True):
            assert first.tobytes() == second.tobytes()
        assert all(server.knows(range(6), [300] * 6))
        assert len({logits.tobytes() for logits in alone}) == 6


class TestSavedModel:
    def test_no_checkpoint_holds_sessions(self, resident, loaded, make_tokens):
        loaded.step([3], [0], make_tokens(1, 7))
        variables = tf.train.list_variables(
            f"{resident.path}/variables/variables"
        )
        sizes = {
            name: int(np.prod(shape))
            for name, shape in variables
            if name != "_CHECKPOINTABLE_OBJECT_GRAPH"
        }
        assert sum(sizes.values()) == sum(
            int(np.prod(weight.shape)) for weight in resident.model.weights
        )
        assert all(name.startswith("_raw_weights/") for name in sizes)

    def test_what_is_loaded_twice_is_not_shared(
        self, resident, loaded, open_session, make_tokens
    ):
        # Given a session,
        tokens = make_tokens(1, 7)
        loaded.step([3], [0], tokens)
        # when the export is loaded again, in this process or in a session,
        again = Server(call_loaded(tf.saved_model.load(resident.path)))
        for other in (again, Server(open_session(resident).call)):
            # then it is not known there,
            with pytest.raises(UNKNOWN, match="session_id is unknown"):
                other.step([3], [7], tokens)
            other.step([3], [0], tokens[:, :5])
            # nor is it touched by another of the same name.
            assert loaded.knows([3], [7]) == [True]
            assert other.knows([3], [5]) == [True]
            other.close()
        assert loaded.knows([3], [7]) == [True]

    def test_a_loaded_export_may_be_saved_again(
        self, resident, loaded, tmp_path, make_tokens
    ):
        # It starts without sessions.
        loaded.step([3], [0], make_tokens(1, 7))
        tf.saved_model.save(
            resident.loaded,
            str(tmp_path),
            signatures=dict(resident.loaded.signatures),
        )
        again = Server(call_loaded(tf.saved_model.load(str(tmp_path))))
        with pytest.raises(UNKNOWN):
            again.step([3], [7], make_tokens(1, 7))
        assert again.step([3], [0], make_tokens(1, 7))[1] == [7]
