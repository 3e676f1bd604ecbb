"""Tests of where sessions are kept: dtypes, limits, and who writes when.

Outside a graph one request can be made while the model of another runs: so the
order in which two of them read and write is the test's choice.
"""

import gc
import threading

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.serving.resident import SessionStore

LAST = 2**31 - 1
INVALID = tf.errors.InvalidArgumentError
UNKNOWN = tf.errors.FailedPreconditionError


def failure(function, *args):
    """Type and message of the error that a call raises.

    Outside a graph, whoever holds the error holds the lock that the request
    had: the frames of its traceback do.
    """
    try:
        function(*args)
    except (INVALID, UNKNOWN, InterruptedError) as error:
        raised = type(error), str(error)
    else:
        raise AssertionError("did not raise")
    gc.collect()
    return raised


class Sessions:
    """A store of 3 sessions, fed by a model."""

    def __init__(self, model, num_slots=3):
        self.model = model
        self.store = SessionStore(model, num_slots)
        # What loading a SavedModel does.
        for resource in (
            self.store._ids,
            self.store._positions,
            self.store._versions,
            *self.store._rings.values(),
        ):
            resource._initialize()

    def step(self, session_id, position, tokens, meanwhile=None, lengths=None):
        """Runs a step, and something else before it writes."""

        def function(memories):
            logits, memories = self.model(tokens, memories, lengths=lengths)
            if meanwhile:
                meanwhile()
            return {"logits": logits}, memories

        return self.store.run(
            tf.constant(session_id, tf.int64),
            tf.constant(position, tf.int32),
            tf.constant(tokens),
            function,
        )

    def end(self, *session_id):
        return self.store.end(tf.constant(session_id, tf.int64)).numpy()

    def memories(self, session_id, position):
        """What the next request of some sessions would read."""
        held = {}

        def function(memories):
            held.update(memories)
            raise InterruptedError

        error, message = failure(
            self.store.run,
            tf.constant(session_id, tf.int64),
            tf.constant(position, tf.int32),
            tf.zeros([len(session_id), 0], tf.int32),
            function,
        )
        if error is not InterruptedError:
            raise AssertionError(message)
        return {name: value.numpy() for name, value in held.items()}


@pytest.fixture
def sessions(make_model):
    return Sessions(make_model())


class TestDtypes:
    @pytest.mark.parametrize(
        ("content", "memory_dtype", "dtype"),
        [
            ("hidden", None, "float32"),
            ("hidden", "bfloat16", "float32"),
            ("hidden", "int8", "float32"),
            ("hidden", None, "mixed_bfloat16"),
            ("hidden", None, "float64"),
            ("key_value", None, "float32"),
            ("key_value", "float16", "float32"),
            ("key_value", "bfloat16", "float32"),
            ("key_value", "int8", "float32"),
            ("key_value", "int8", "mixed_bfloat16"),
        ],
        ids=str,
    )
    def test_what_is_kept_is_what_a_client_would_carry(
        self, make_model, make_tokens, content, memory_dtype, dtype
    ):
        # Given sessions and the memories of a client,
        model = make_model(
            memory_format=content, memory_dtype=memory_dtype, dtype=dtype
        )
        sessions = Sessions(model)
        carried = model.initial_memories(2)
        for seed, length in enumerate((3, 1, 7, 1, 31, 5)):
            tokens = make_tokens(2, length, seed)
            # when both go on,
            position = carried["position"].numpy()
            logits, carried = model(tokens, carried)
            outputs = sessions.step([5, -3], position, tokens)
            # then they are the same, bit for bit, and in the same dtype.
            assert outputs["logits"].numpy().tobytes() == (
                logits.numpy().tobytes()
            )
            position = outputs["position"].numpy()
            held = sessions.memories([5, -3], position)
            valid = np.arange(11) >= 11 - position[0]
            assert held.keys() == carried.keys()
            for name, value in carried.items():
                value = value.numpy()
                assert held[name].dtype == value.dtype
                if name != "position":  # Slots never written hold anything.
                    span = value.shape[1]
                    held[name] = held[name][:, valid[-span:]]
                    value = value[:, valid[-span:]]
                assert held[name].tobytes() == value.tobytes()

    def test_without_any_memory(self, make_model, make_tokens):
        sessions = Sessions(make_model((0, 0)))
        sessions.step([5], [0], make_tokens(1, 7))
        outputs = sessions.step([5], [7], make_tokens(1, 3))
        assert outputs["position"].numpy().tolist() == [10]
        error, message = failure(sessions.step, [5], [7], make_tokens(1, 3))
        assert error is INVALID
        assert "position must be that of the session" in message

    @pytest.mark.parametrize("num_slots", [0, -1])
    def test_no_slots_are_refused(self, make_model, num_slots):
        message = f"^sessions must be 1 or more, .*; got {num_slots}"
        with pytest.raises(ValueError, match=message):
            SessionStore(make_model(), num_slots)


class TestLastPosition:
    """Positions stop at the last one; memories go on."""

    @pytest.fixture
    def near_the_end(self, sessions, make_tokens):
        def start(session_id, position):
            """A session, and a client's memories, that have seen so much."""
            tokens = make_tokens(1, 31, seed=13)
            _, memories = sessions.model(tokens, None)
            memories["position"] = tf.constant([position])
            sessions.store.run(
                tf.constant([session_id], tf.int64),
                tf.constant([0]),
                tf.constant(tokens),
                lambda _: ({}, memories),
            )
            return memories

        return start

    @pytest.mark.parametrize("ahead", [0, 1, 2, 5, 12])
    def test_memories_are_a_clients(
        self, sessions, near_the_end, make_tokens, ahead
    ):
        # Given a session that ends soon, beside another,
        carried = near_the_end(3, LAST - ahead)
        sessions.step([5], [0], make_tokens(1, 13))
        other = sessions.memories([5], [13])
        for seed, length in enumerate((7, 1, 3, 13)):
            # when it goes on and on,
            tokens = make_tokens(1, length, seed)
            position = carried["position"].numpy()
            expected, carried = sessions.model(tokens, carried)
            outputs = sessions.step([3], position, tokens)
            # then it still sees all that a client's memories hold,
            np.testing.assert_allclose(outputs["logits"], expected, atol=1e-5)
            held = sessions.memories([3], outputs["position"].numpy())
            for name, value in carried.items():
                np.testing.assert_allclose(held[name], value, atol=1e-5)
        assert outputs["position"].numpy().tolist() == [LAST]
        # and the other is as it was.
        for name, value in sessions.memories([5], [13]).items():
            assert value.tobytes() == other[name].tobytes()

    def test_beside_others_in_one_call(
        self, sessions, near_the_end, make_tokens
    ):
        carried = near_the_end(3, LAST - 2)
        fresh = sessions.model.initial_memories(1)
        carried = {
            name: tf.concat([value, fresh[name]], axis=0)
            for name, value in carried.items()
        }
        for seed, length in enumerate((7, 1, 3)):
            tokens = make_tokens(2, length, seed)
            position = carried["position"].numpy()
            expected, carried = sessions.model(tokens, carried)
            outputs = sessions.step([3, 5], position, tokens)
            np.testing.assert_allclose(outputs["logits"], expected, atol=1e-5)
        assert outputs["position"].numpy().tolist() == [LAST, 11]


class TestInterleaving:
    """Requests that write while the model of another one runs."""

    @pytest.fixture
    def at_7(self, sessions, make_tokens):
        """Session 3 is at position 7."""
        sessions.step([3], [0], make_tokens(1, 7))
        return sessions

    @pytest.fixture
    def assert_refused(self, at_7, make_tokens):
        """Session 3's step to 12 is refused; what `meanwhile` did stays."""

        def check(error, name, meanwhile, position=7):
            after = {}

            def run():
                meanwhile()
                after.update(self.everything(at_7))

            raised, message = failure(
                at_7.step, [3], [position], make_tokens(1, 5, seed=5), run
            )
            assert raised is error
            assert name in message
            assert self.everything(at_7) == after
            # Nobody waits for what was refused.
            at_7.step([17], [0], make_tokens(1, 5))

        return check

    @staticmethod
    def everything(sessions):
        store = sessions.store
        resources = {
            "ids": store._ids,
            "positions": store._positions,
            "versions": store._versions,
            **store._rings,
        }
        return {
            name: resource.read().numpy().tobytes()
            for name, resource in resources.items()
        }

    def test_another_step(self, at_7, assert_refused, make_tokens):
        assert_refused(
            INVALID,
            "position is no longer that of the session",
            lambda: at_7.step([3], [7], make_tokens(1, 3)),
        )
        assert at_7.memories([3], [10])["position"] == 10

    def test_another_step_of_no_tokens(self, at_7, assert_refused, make_tokens):
        assert_refused(
            INVALID,
            "position",
            lambda: at_7.step([3], [7], make_tokens(1, 0)),
        )

    def test_a_restart(self, at_7, assert_refused, make_tokens):
        assert_refused(
            INVALID,
            "position",
            lambda: at_7.step([3], [0], make_tokens(1, 7, seed=7)),
        )
        # The other way round too.
        assert_refused(
            INVALID,
            "position",
            lambda: at_7.step([3], [7], make_tokens(1, 3)),
            position=0,
        )

    def test_an_end(self, at_7, assert_refused):
        assert_refused(UNKNOWN, "session_id is unknown", lambda: at_7.end(3))

    def test_an_eviction(self, at_7, assert_refused, make_tokens):
        assert_refused(
            UNKNOWN,
            "session_id is unknown",
            lambda: at_7.step([4, 5, 6], [0, 0, 0], make_tokens(3, 7)),
        )

    def test_an_end_and_a_new_start_at_the_same_position(
        self, at_7, assert_refused, make_tokens
    ):
        # Same session, same position, another text.
        def meanwhile():
            at_7.end(3)
            at_7.step([3], [0], make_tokens(1, 7, seed=7))

        assert_refused(INVALID, "position", meanwhile)
        _, expected = at_7.model(make_tokens(1, 7, seed=7))
        held = at_7.memories([3], [7])
        np.testing.assert_allclose(
            held["memory_00"], expected["memory_00"], atol=1e-5
        )

    def test_an_eviction_and_a_new_start_at_the_same_position(
        self, at_7, assert_refused, make_tokens
    ):
        def meanwhile():
            at_7.step([4, 5, 6], [0, 0, 0], make_tokens(3, 7))
            at_7.end(4, 5, 6)
            at_7.step([3], [0], make_tokens(1, 7, seed=7))

        assert_refused(INVALID, "position", meanwhile)

    def test_two_starts_of_one_session(self, sessions, make_tokens):
        tokens = make_tokens(2, 7)

        def meanwhile():
            sessions.step([3], [0], tokens[:1])

        error, message = failure(sessions.step, [3], [0], tokens[1:], meanwhile)
        assert error is INVALID
        assert "position is no longer that of the session" in message
        _, expected = sessions.model(tokens[:1])
        held = sessions.memories([3], [7])
        np.testing.assert_allclose(
            held["memory_00"], expected["memory_00"], atol=1e-5
        )

    def test_one_changed_session_of_several(self, at_7, make_tokens):
        # Then none of them is written, nor started.
        at_7.step([4], [0], make_tokens(1, 7))
        before = at_7.memories([4], [7])

        def meanwhile():
            at_7.step([3], [7], make_tokens(1, 3))

        error, message = failure(
            at_7.step, [4, 3, 5], [7, 7, 0], make_tokens(3, 7), meanwhile
        )
        assert error is INVALID
        assert "position is no longer that of the session" in message
        for name, value in at_7.memories([4], [7]).items():
            assert value.tobytes() == before[name].tobytes()
        error, _ = failure(at_7.step, [5], [7], make_tokens(1, 7))
        assert error is UNKNOWN

    def test_who_writes_is_alone(self, at_7, make_tokens, monkeypatch):
        # Given a request that comes when another one has compared, and has
        # not yet written,
        refused = []

        def write_too():
            tokens = make_tokens(1, 3, seed=3)
            refused.append(failure(at_7.step, [3], [7], tokens))

        other = threading.Thread(target=write_too)
        choose = at_7.store._with_new_slots

        def choose_slots(*args):
            if other.ident is None:
                other.start()
                # It cannot end, however long one waits.
                other.join(0.3)
                assert other.is_alive()
            return choose(*args)

        with monkeypatch.context() as patch:
            patch.setattr(at_7.store, "_with_new_slots", choose_slots)
            outputs = at_7.step([3], [7], make_tokens(1, 5))
        other.join()
        # then it waits, and comes too late.
        assert outputs["position"].numpy().tolist() == [12]
        ((error, message),) = refused
        assert error is INVALID
        assert "position must be that of the session" in message

    def test_other_sessions_may_do_as_they_like(self, at_7, make_tokens):
        # A restart whose session is evicted meanwhile, too.
        tokens, expected = make_tokens(1, 5, seed=5), {}

        def meanwhile():
            at_7.step([4], [0], make_tokens(1, 13))
            at_7.step([5, 4], [0, 13], make_tokens(2, 3))
            at_7.end(5)
            expected.update(at_7.memories([4], [16]))

        outputs = at_7.step([3], [7], tokens, meanwhile)
        assert outputs["position"].numpy().tolist() == [12]
        for name, value in at_7.memories([4], [16]).items():
            assert value.tobytes() == expected[name].tobytes()
        alone = Sessions(at_7.model)
        alone.step([3], [0], make_tokens(1, 7))
        alone.step([3], [7], tokens)
        for name, value in alone.memories([3], [12]).items():
            np.testing.assert_array_equal(at_7.memories([3], [12])[name], value)

    def test_a_restart_of_a_session_that_is_gone_by_then(
        self, at_7, make_tokens
    ):
        for meanwhile in (
            lambda: at_7.end(3),
            lambda: at_7.step([4, 5, 6], [0] * 3, make_tokens(3, 7)),
        ):
            at_7.step([3], [0], make_tokens(1, 5, seed=5), meanwhile)
            _, expected = at_7.model(make_tokens(1, 5, seed=5))
            held = at_7.memories([3], [5])
            np.testing.assert_allclose(
                held["memory_00"], expected["memory_00"], atol=1e-5
            )

    def test_a_model_that_fails(self, at_7, make_tokens):
        before = self.everything(at_7)

        def fail():
            raise InterruptedError

        error, _ = failure(at_7.step, [3, 4], [7, 0], make_tokens(2, 7), fail)
        assert error is InterruptedError
        assert self.everything(at_7) == before
        at_7.step([3], [7], make_tokens(1, 7))

    def test_a_write_that_fails_midway(self, at_7, make_tokens, monkeypatch):
        # Given another session,
        at_7.step([4], [0], make_tokens(1, 13))
        other = at_7.memories([4], [13])
        # when only a part of the memories was written,
        write, calls = at_7.store._write, []

        def fail_at_the_second(*args):
            calls.append(args)
            if len(calls) == 2:
                raise InterruptedError
            return write(*args)

        with monkeypatch.context() as patch:
            patch.setattr(at_7.store, "_write", fail_at_the_second)
            error, _ = failure(at_7.step, [3], [7], make_tokens(1, 5))
            assert error is InterruptedError
        # then nobody goes on from them, whatever position is named,
        for position in (7, 12):
            error, message = failure(
                at_7.step, [3], [position], make_tokens(1, 5)
            )
            assert error is UNKNOWN
            assert "session_id is unknown" in message
        # the other is as it was, and the session can be started again.
        for name, value in at_7.memories([4], [13]).items():
            assert value.tobytes() == other[name].tobytes()
        at_7.step([3], [0], make_tokens(1, 5))
        at_7.step([3], [5], make_tokens(1, 5))
