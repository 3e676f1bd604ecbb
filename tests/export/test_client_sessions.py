"""Tests of export/client_sessions.py over real gRPC."""

import itertools
import threading

import numpy as np
import pytest
import tensorflow as tf

SAMPLING = {"temperature": 0.9, "top_k": 31, "top_p": 0.95}
MEMORIES = ["memory_00", "memory_02", "position"]


def joined(stream):
    return np.concatenate(list(stream)).tolist()


class TestCarried:
    def test_a_fresh_session_has_zeros_of_the_models_own_names(
        self, client, connect, server, of_bytes
    ):
        session = client.CarriedSession(connect(server), lanes=3)
        expected = of_bytes.model.initial_memories(3)
        assert sorted(session.memories) == MEMORIES == sorted(expected)
        for name, value in expected.items():
            found = tf.make_ndarray(session.memories[name])
            assert found.dtype == np.array(value).dtype
            np.testing.assert_array_equal(found, value)

    def test_bytes_of_a_lane(self, client, connect, server):
        assert client.lane_bytes(connect(server)) == {
            "memory_00": 4 * 5 * 10,
            "memory_02": 4 * 11 * 10,
            "position": 4,
        }

    def test_segment_by_segment_it_is_the_model(
        self, client, connect, own_server, of_bytes
    ):
        session = client.CarriedSession(connect(own_server), lanes=3)
        memories = of_bytes.model.initial_memories(3)
        rng = np.random.default_rng(5)
        for length in (7, 1, 13):
            tokens = rng.integers(0, 256, [3, length])
            exact, memories = of_bytes.model(tokens.astype("int32"), memories)
            logits = session.predict(tokens)
            assert logits.shape == (3, length, 256)
            np.testing.assert_allclose(logits, exact, rtol=0, atol=1e-5)
        assert (
            tf.make_ndarray(session.memories["position"]).tolist() == [21] * 3
        )

    def test_any_signature_that_carries_memories(
        self, client, connect, server, of_bytes
    ):
        session = client.CarriedSession(connect(server), lanes=2)
        session.predict([[3, 5], [7, 11]])
        _, memories = of_bytes.model(
            np.array([[3, 5], [7, 11]], "int32"),
            of_bytes.model.initial_memories(2),
        )
        inputs = {
            "tokens": np.array([[13], [17]], "int32"),
            "targets": np.array([[19], [23]], "int32"),
        }
        found = session.call("score", inputs, ["log_probs"])["log_probs"]
        exact, _ = of_bytes.model.score(*inputs.values(), memories)
        assert found.shape == (2, 1)
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5)

    def test_memories_go_back_as_they_came(
        self, client, connect, own_server, recorded
    ):
        session = client.CarriedSession(connect(own_server))
        with recorded(own_server) as calls:
            joined(session.stream([3, 5, 7], 11, tokens_per_call=2))
        assert len(calls) == 6
        for (_, response), (request, _) in itertools.pairwise(calls):
            for name in MEMORIES:
                sent = request.inputs[name].SerializeToString()
                assert sent == response.outputs[name].SerializeToString()
        # The test is about both encodings.
        content = calls[-1][0].inputs["memory_02"].tensor_content
        assert bool(content) != own_server.as_fields

    def test_eight_sessions_at_once_are_each_its_own(
        self, client, connect, own_server, of_bytes
    ):
        def arguments(index):
            prompt = np.random.default_rng(index).integers(0, 256, 3 + index)
            return prompt, {**SAMPLING, "seed": index, "max_new_tokens": 13}

        # Each call waits until all eight sessions are in the server.
        barrier = threading.Barrier(8, timeout=120)

        def around(request, answer):
            barrier.wait()
            return answer()

        one, found = connect(own_server), {}
        own_server.around = around

        def run(index):
            session = client.open_session(one)
            prompt, sampling = arguments(index)
            found[index] = joined(
                session.stream(prompt, tokens_per_call=3, **sampling)
            )

        threads = [
            threading.Thread(target=run, args=[index]) for index in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({tuple(tokens) for tokens in found.values()}) == 8
        for index in range(8):
            prompt, sampling = arguments(index)
            expected = joined(of_bytes.generator.stream(prompt, **sampling))
            assert found[index] == expected

    def test_a_restart_of_the_server_changes_no_byte(
        self, client, connect, own_server, pauses
    ):
        one = connect(own_server)
        whole, cut = (client.CarriedSession(one, lanes=2) for _ in range(2))
        rng = np.random.default_rng(7)
        first, second = (rng.integers(0, 256, [2, length]) for length in (7, 5))
        expected = whole.predict(first), whole.predict(second)
        before = cut.predict(first)
        own_server.stop()
        pauses.then = lambda: len(pauses) == 1 and own_server.start()
        after = cut.predict(second)
        # The call itself outlasted the restart.
        assert pauses
        assert before.tobytes() == expected[0].tobytes()
        assert after.tobytes() == expected[1].tobytes()
        for name in MEMORIES:
            assert (
                cut.memories[name].SerializeToString()
                == whole.memories[name].SerializeToString()
            )

    def test_what_is_not_wanted_is_not_sent(
        self, client, connect, server, recorded
    ):
        session = client.CarriedSession(connect(server))
        with recorded(server) as calls:
            session.call("predict", {"tokens": [[2]]}, [])
            session.call("predict", {"tokens": [[3]]}, ["logits"])
        outputs = [sorted(response.outputs) for _, response in calls]
        assert outputs == [MEMORIES, ["logits", *MEMORIES]]

    def test_a_fresh_session_sends_no_zeros(
        self, client, connect, server, recorded
    ):
        session = client.CarriedSession(connect(server), lanes=1000)
        with recorded(server) as calls:
            session.predict(np.full([1000, 1], 2))
        assert session._client.calls[-1].request_bytes < 5_000
        fresh, after = calls[0][0].inputs, session.memories
        for name in MEMORIES:
            assert fresh[name].tensor_shape == after[name].tensor_shape
            assert fresh[name].dtype == after[name].dtype
            assert not tf.make_ndarray(fresh[name]).any()

    @pytest.mark.parametrize("piece", [1, 5, 12, 13, 512])
    def test_how_a_prompt_is_cut_does_not_matter(
        self, client, connect, server, of_bytes, piece
    ):
        prompt = np.random.default_rng(3).integers(0, 256, 13)
        session = client.CarriedSession(connect(server))
        found = joined(
            session.stream(prompt, 7, prompt_tokens_per_call=piece, **SAMPLING)
        )
        assert found == joined(of_bytes.generator.stream(prompt, 7, **SAMPLING))

    def test_a_stop_token_ends_it(self, client, connect, server, of_bytes):
        expected = joined(of_bytes.generator.stream([3, 5], 17, **SAMPLING))
        stop = expected[6]
        assert stop not in expected[:6]
        session = client.CarriedSession(connect(server))
        found = list(
            session.stream(
                [3, 5], 17, stop_token=stop, tokens_per_call=5, **SAMPLING
            )
        )
        assert [new.tolist() for new in found] == [expected[:5], expected[5:7]]

    def test_lanes_have_their_own_sampling(
        self, client, connect, server, of_bytes
    ):
        session = client.CarriedSession(connect(server), lanes=2)
        generated, lengths = session.generate(
            [[3, 5], [11, 2]],
            [7, 4],
            seed=[13, 17],
            temperature=[0.0, 0.9],
            top_p=0.95,
        )
        assert lengths.tolist() == [7, 4]
        assert generated[1, 4:].tolist() == [-1] * 3
        lanes = ([3, 5], 7, 13, 0.0), ([11, 2], 4, 17, 0.9)
        for lane, (prompt, count, seed, temperature) in enumerate(lanes):
            stream = of_bytes.generator.stream(
                prompt, count, temperature, seed=seed, top_p=0.95
            )
            assert generated[lane, :count].tolist() == joined(stream)

    def test_memories_are_a_way_back(self, client, connect, server):
        session = client.CarriedSession(connect(server))
        session.predict([[3, 5, 7]])
        kept = dict(session.memories)
        first = session.predict([[11]])
        session.memories = kept
        np.testing.assert_array_equal(session.predict([[11]]), first)

    def test_a_refused_call_counts_as_not_made(self, client, connect, server):
        session, other = (
            client.CarriedSession(connect(server)) for _ in range(2)
        )
        session.predict([[3, 5]])
        with pytest.raises(client.ClientError) as caught:
            session.predict([[256]])
        assert str(caught.value) == (
            f"INVALID_ARGUMENT: lrm at {server.address}, predict: assertion "
            "failed: [tokens must be from 0 to 255; got values from] [256] "
            "[to] [256]"
        )
        other.predict([[3, 5]])
        np.testing.assert_array_equal(
            session.predict([[7]]), other.predict([[7]])
        )

    def test_stream_refuses_calls_of_nothing(self, client, connect, server):
        session = client.CarriedSession(connect(server))
        for name in ("tokens_per_call", "prompt_tokens_per_call"):
            with pytest.raises(ValueError, match="at least one token"):
                next(session.stream([1], 2, **{name: 0}))
        session = client.CarriedSession(connect(server), lanes=2)
        with pytest.raises(ValueError, match="needs 1 lane; got 2"):
            next(session.stream([1], 2))

    def test_nothing_to_carry(self, client, connect, session_server):
        with pytest.raises(client.ClientError, match="no signature carries"):
            client.open_session(connect(session_server), "carried")


class Formats(tf.Module):
    """Memories of every dtype; the newest token enters each."""

    SPECS = {
        "key_00": ([None, 3, 2, 5], tf.bfloat16),
        "value_00": ([None, 3, 2, 5], tf.int8),
        "value_00_scale": ([None, 3], tf.float32),
        "memory_01": ([None, 7, 11], tf.float16),
        "position": ([None], tf.int32),
    }

    def signatures(self):
        specs = {
            name: tf.TensorSpec(shape, dtype, name)
            for name, (shape, dtype) in self.SPECS.items()
        }
        tokens = tf.TensorSpec([None, None], tf.int32, "tokens")
        predict = tf.function(self.predict, autograph=False)
        return {
            "predict": predict.get_concrete_function(tokens=tokens, **specs)
        }

    def predict(self, tokens, position, **memories):
        newest = tf.cast(tokens[:, -1], tf.float32) - 60.5
        updated, total = {}, 0.0
        for name, memory in memories.items():
            rank = memory.shape.rank
            row = tf.reshape(newest, [-1] + [1] * (rank - 1))
            if memory.dtype != tf.int8:
                row /= 7  # No power of 2.
            row = tf.cast(row, memory.dtype) + memory[:, :1] * 0
            updated[name] = tf.concat([memory[:, 1:], row], 1)
            values = tf.cast(updated[name], tf.float32)
            total += tf.reduce_sum(values, list(range(1, rank)))
        return {
            "logits": total[:, None, None] + tf.range(13.0),
            "position": position + tf.shape(tokens)[1],
            **updated,
        }


@pytest.mark.parametrize("as_fields", [False, True])
def test_memories_of_every_dtype(client, connect, service, tmp_path, as_fields):
    module = Formats()
    signatures = module.signatures()
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=signatures)
    with service.PredictionServer(
        {"lrm": str(tmp_path)}, as_fields=as_fields
    ) as server:
        one = connect(server)
        assert client.lane_bytes(one) == {
            "key_00": 2 * 30,
            "value_00": 30,
            "value_00_scale": 12,
            "memory_01": 2 * 77,
            "position": 4,
        }
        session = client.CarriedSession(one, lanes=2)
        memories = {
            name: tf.zeros([2, *shape[1:]], dtype)
            for name, (shape, dtype) in Formats.SPECS.items()
        }
        for token in (0, 3, 127, 60):
            tokens = tf.constant([[token], [token + 1]])
            memories = signatures["predict"](tokens=tokens, **memories)
            logits = memories.pop("logits")
            np.testing.assert_array_equal(session.predict(tokens), logits)
    assert session.memories.keys() == memories.keys()
    for name, value in memories.items():
        found = tf.make_ndarray(session.memories[name])
        assert found.dtype == value.dtype.as_numpy_dtype
        assert found.tobytes() == value.numpy().tobytes()


class TestResident:
    def test_auto_takes_it_where_it_is(
        self, client, connect, session_server, server
    ):
        session = client.open_session(connect(session_server))
        assert isinstance(session, client.ResidentSession)
        session = client.open_session(connect(server))
        assert isinstance(session, client.CarriedSession)

    def test_there_is_none(self, client, connect, server):
        with pytest.raises(client.ClientError, match="no signature keeps"):
            client.open_session(connect(server), "resident")

    @pytest.mark.parametrize("piece", [2, 3, 512])
    def test_a_stream(self, client, connect, session_server, piece, make_toy):
        session = client.open_session(connect(session_server))
        found = joined(
            session.stream(
                [3, 5, 7], 13, 4, 5, prompt_tokens_per_call=piece, seed=17
            )
        )
        assert found == make_toy().write([3, 5, 7], 13, 17)

    def test_sessions_do_not_mix(
        self, client, connect, session_server, make_toy
    ):
        one = connect(session_server)
        sessions = [client.ResidentSession(one) for _ in range(3)]
        toys = [make_toy() for _ in range(3)]
        for step in range(3):
            for index, session in enumerate(sessions):
                tokens = [index + 2, step + 5]
                logits = session.predict([tokens]).tolist()
                assert logits == toys[index].read(tokens)

    def test_lanes_are_sessions(
        self, client, connect, session_server, make_toy
    ):
        session = client.ResidentSession(connect(session_server), lanes=2)
        toys = make_toy(), make_toy()
        for tokens in ([[2, 3], [5, 7]], [[11], [13]]):
            expected = [
                toy.read(row)[0] for toy, row in zip(toys, tokens, strict=True)
            ]
            assert session.predict(tokens).tolist() == expected

    def test_no_memory_travels(self, client, connect, session_server, recorded):
        session = client.ResidentSession(connect(session_server))
        with recorded(session_server) as calls:
            session.predict([[2, 3]])
            session.generate([[5]], 3)
            session.end()
        requests = [sorted(request.inputs) for request, _ in calls]
        own = ["position", "session_id", "tokens"]
        sampling = ["max_new_tokens", "seed", "stop_token", "temperature"]
        assert requests[0] == own
        assert requests[1] == sorted([*own, *sampling, "top_k", "top_p"])
        assert requests[2] == ["session_id"]
        positions = [
            tf.make_ndarray(request.inputs["position"]).tolist()
            for request, _ in calls[:2]
        ]
        assert positions == [[0], [2]]

    def test_a_call_that_was_not_carried_out_is_repeated(
        self, client, connect, session_server, service, pauses, make_toy
    ):
        session, toy = (
            client.ResidentSession(connect(session_server)),
            make_toy(),
        )
        assert session.predict([[2, 3]]).tolist() == toy.read([2, 3])
        failures = iter([True, True, False])

        def around(request, answer):
            if next(failures):
                raise service.ServiceError("UNAVAILABLE", "queue is full")
            return answer()

        session_server.around = around
        assert session.predict([[5]]).tolist() == toy.read([5])
        assert len(pauses) == 2

    @pytest.fixture
    def lose_answers(self, session_server, service):
        """Makes the next so many calls happen, and their answers vanish."""

        def lose(count):
            left = itertools.count(count, -1)

            def around(request, answer):
                response = answer()
                if next(left) > 0:
                    raise service.ServiceError("UNAVAILABLE", "broken pipe")
                return response

            session_server.around = around

        return lose

    def test_a_step_whose_answer_was_lost_is_not_taken_twice(
        self,
        client,
        connect,
        session_server,
        lose_answers,
        pauses,
        make_toy,
        recorded,
    ):
        one = connect(session_server)
        session, other = (client.ResidentSession(one) for _ in range(2))
        toy = make_toy()
        for each in (session, other):
            each.predict([[2, 3]])
        toy.read([2, 3])
        lose_answers(1)
        with pytest.raises(client.ClientError) as caught:
            session.predict([[5]])
        assert len(pauses) == 1
        message = str(caught.value)
        assert message.startswith(
            f"INVALID_ARGUMENT: lrm at {session_server.address}, session_step: "
            "the session's state is unknown"
        )
        assert "restart it (" in message
        assert "position must be that of the session; got] [2]" in message
        assert message.endswith("(sent 2 times))")
        # Nothing more is sent.
        with recorded(session_server) as calls:
            with pytest.raises(client.ClientError) as again:
                session.generate([[5]], 3)
            assert str(again.value).endswith(message.split(": ", 2)[2])
        assert not calls
        # No other session is meant.
        assert other.predict([[5]]).tolist() == toy.read([5])
        session.restart()
        assert session.predict([[7]]).tolist() == make_toy().read([7])

    def test_a_start_whose_answer_was_lost_is_made_again(
        self, client, connect, session_server, lose_answers, pauses, make_toy
    ):
        session, toy = (
            client.ResidentSession(connect(session_server)),
            make_toy(),
        )
        lose_answers(2)
        assert session.predict([[2, 3]]).tolist() == toy.read([2, 3])
        assert len(pauses) == 2
        assert session.predict([[5]]).tolist() == toy.read([5])

    def test_a_start_that_was_given_up_cannot_come_late(
        self, client, connect, session_server, lose_answers, pauses, make_toy
    ):
        session = client.ResidentSession(connect(session_server, retries=0))
        lose_answers(1)
        late = []
        lost = session_server.around

        def around(request, answer):
            late.append(request)
            return lost(request, answer)

        session_server.around = around
        with pytest.raises(client.ClientError, match="UNAVAILABLE"):
            session.predict([[2, 3]])
        session_server.around = None
        toy = make_toy()
        assert session.predict([[13, 7]]).tolist() == toy.read([13, 7])
        # The first start, of other tokens, is carried out only now.
        session_server.predict(late[0])
        assert session.predict([[11]]).tolist() == toy.read([11])

    def test_a_call_that_raised_may_be_made_again(
        self, client, connect, session_server, service, make_toy
    ):
        session = client.ResidentSession(connect(session_server, retries=0))
        toy = make_toy()
        assert session.predict([[2, 3]]).tolist() == toy.read([2, 3])

        def around(request, answer):
            raise service.ServiceError("UNAVAILABLE", "queue is full")

        session_server.around = around
        with pytest.raises(client.ClientError, match="queue is full"):
            session.predict([[5]])
        session_server.around = None
        assert session.predict([[7]]).tolist() == toy.read([7])

    def test_a_call_that_raised_and_was_carried_out_cannot_be(
        self, client, connect, session_server, lose_answers
    ):
        session = client.ResidentSession(connect(session_server, retries=0))
        session.predict([[2, 3]])
        lose_answers(1)
        with pytest.raises(client.ClientError, match="broken pipe"):
            session.predict([[5]])
        with pytest.raises(client.ClientError, match="state is unknown"):
            session.predict([[5]])

    def test_wrong_tokens_do_not_end_it(
        self, client, connect, session_server, make_toy
    ):
        session, toy = (
            client.ResidentSession(connect(session_server)),
            make_toy(),
        )
        session.predict([[2, 3]])
        toy.read([2, 3])
        with pytest.raises(client.ClientError, match="tokens must be below"):
            session.predict([[23]])
        assert session.predict([[5]]).tolist() == toy.read([5])

    def test_it_dies_with_its_server(
        self, client, connect, session_server, pauses, make_toy
    ):
        session = client.ResidentSession(connect(session_server))
        session.predict([[2, 3]])
        session_server.stop()
        session_server.start()
        with pytest.raises(client.ClientError) as caught:
            session.predict([[5]])
        assert caught.value.code == "FAILED_PRECONDITION"
        assert "the session's state is unknown" in str(caught.value)
        session.restart()
        assert session.predict([[5]]).tolist() == make_toy().read([5])

    def test_end_frees_it(self, client, connect, session_server, recorded):
        session = client.ResidentSession(connect(session_server))
        session.predict([[2, 3]])
        with recorded(session_server) as calls:
            session.end()
        ended = calls[0][1].outputs["ended"]
        assert tf.make_ndarray(ended).tolist() == [True]
        with pytest.raises(client.ClientError, match="FAILED_PRECONDITION"):
            session.predict([[5]])

    def test_the_end_of_a_server_is_an_end(
        self, client, connect, session_server, pauses
    ):
        session = client.ResidentSession(connect(session_server))
        session.predict([[2, 3]])
        session_server.stop()
        session.end()
        assert not pauses
