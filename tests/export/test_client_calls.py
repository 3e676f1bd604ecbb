"""Tests of export/client_calls.py over real gRPC and HTTP."""

import pathlib
import shutil
import subprocess
import threading
import types

import grpc
import numpy as np
import pytest
import tensorflow as tf


class TestRepeats:
    @pytest.mark.parametrize("retries", [0, 2])
    def test_they_end(self, client, connect, session_server, pauses, retries):
        one = connect(session_server, retries=retries)
        session_server.stop()
        with pytest.raises(client.ClientError) as caught:
            client.ResidentSession(one).predict([[2]])
        assert caught.value.code == "UNAVAILABLE"
        assert len(pauses) == retries
        times = " (sent 3 times)"
        assert str(caught.value).endswith(times) == (retries == 2)

    def test_pauses_grow_up_to_a_limit(
        self, client, connect, session_server, pauses
    ):
        one = connect(session_server, timeout=600)
        session_server.stop()
        with pytest.raises(client.ClientError, match="sent 9 times"):
            client.ResidentSession(one).predict([[2]])
        longest = [0.25, 0.5, 1, 2, 4, 8, 8, 8]
        for pause, limit in zip(pauses, longest, strict=True):
            assert limit / 2 <= pause <= limit

    def test_they_keep_to_the_time(
        self, client, connect, session_server, pauses, monkeypatch
    ):
        one = connect(session_server)
        session_server.stop()
        # Less than the first pause.
        monkeypatch.setattr(one, "_timeout", 0.1)
        with pytest.raises(client.ClientError):
            client.ResidentSession(one).predict([[2]])
        assert not pauses

    def test_a_server_without_a_free_thread_is_asked_again(
        self, client, connect, session_server, service, pauses, make_toy
    ):
        refused = iter([True, True, False])

        def around(request, answer):
            if next(refused):
                raise service.ServiceError(
                    "RESOURCE_EXHAUSTED", "Server Threadpool Exhausted"
                )
            return answer()

        session_server.around = around
        session = client.ResidentSession(connect(session_server))
        assert session.predict([[2]]).tolist() == make_toy().read([2])
        assert len(pauses) == 2

    @pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "INTERNAL"])
    def test_other_errors_are_not_repeated(
        self, client, connect, session_server, service, pauses, code
    ):
        def around(request, answer):
            raise service.ServiceError(code, "no\nroom [[{{node a/b}}]]")

        session_server.around = around
        with pytest.raises(client.ClientError) as caught:
            client.ResidentSession(connect(session_server)).predict([[2]])
        assert str(caught.value) == (
            f"{code}: lrm at {session_server.address}, session_step: no room"
        )
        assert not pauses

    def test_a_deadline_is_not_repeated(
        self, client, connect, session_server, pauses, monkeypatch
    ):
        one, done = connect(session_server), threading.Event()

        def around(request, answer):
            done.wait(60)
            return answer()

        session_server.around = around
        monkeypatch.setattr(one, "_timeout", 0.2)
        with pytest.raises(client.ClientError, match="DEADLINE_EXCEEDED"):
            client.ResidentSession(one).predict([[2]])
        done.set()
        assert not pauses

    def test_a_server_that_is_not_there_yet(
        self, client, connect, session_server, pauses, make_toy
    ):
        session_server.stop()
        pauses.then = lambda: len(pauses) == 1 and session_server.start()
        session = client.ResidentSession(connect(session_server))
        assert pauses
        assert session.predict([[2]]).tolist() == make_toy().read([2])


class TestVersions:
    @pytest.fixture
    def folder(self, of_sessions, tmp_path):
        for version in (2, 10):
            shutil.copytree(
                pathlib.Path(of_sessions) / "1", tmp_path / str(version)
            )
        return tmp_path

    @pytest.fixture
    def versions(self, service, folder):
        with service.PredictionServer(
            {"lrm": str(folder)}, labels={"stable": 2}
        ) as server:
            yield server

    def test_the_newest_a_number_and_a_label(self, connect, versions):
        assert connect(versions).version == 10
        assert connect(versions, version=2).version == 2
        assert connect(versions, version_label="stable").version == 2

    def test_a_client_keeps_to_its_version(
        self, client, connect, versions, folder, recorded
    ):
        one = connect(versions)
        shutil.copytree(folder / "2", folder / "11")
        versions.stop()
        versions.start()
        assert connect(versions).version == 11
        with recorded(versions) as calls:
            client.ResidentSession(one).predict([[2]])
        assert calls[0][1].model_spec.version.value == 10
        shutil.rmtree(folder / "10")
        versions.stop()
        versions.start()
        with pytest.raises(client.ClientError) as caught:
            client.ResidentSession(one).predict([[2]])
        assert caught.value.code == "NOT_FOUND"
        assert "Specific(lrm, 10)" in str(caught.value)

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ({"model": "nmt"}, "NOT_FOUND: nmt at {}: Servable not found"),
            ({"version": 3}, "NOT_FOUND: lrm at {}: Servable not found"),
            ({"version_label": "x"}, "INVALID_ARGUMENT: lrm at {}: Unrecog"),
        ],
    )
    def test_there_is_none(
        self, client, connect, versions, arguments, expected
    ):
        with pytest.raises(client.ClientError) as caught:
            connect(versions, **arguments)
        assert str(caught.value).startswith(expected.format(versions.address))
        assert "\n" not in str(caught.value)


class TestRefusals:
    @pytest.mark.parametrize(
        ("tokens", "expected"),
        [
            ([[1.5]], "tokens must be int32; got float64"),
            ([["1"]], "tokens must be int32; got <U1"),
            ([3, 5], "tokens must be int32 of shape [?, ?]; got shape [2]"),
            ([[[3]]], "tokens must be int32 of shape [?, ?]; got shape"),
            ([[7, 2**31]], "tokens must be int32; got values from 7 to"),
        ],
    )
    def test_before_it_is_sent(
        self, client, connect, server, tokens, expected, recorded
    ):
        session = client.CarriedSession(connect(server))
        with (
            recorded(server) as calls,
            pytest.raises(client.ClientError) as caught,
        ):
            session.predict(tokens)
        assert str(caught.value).startswith(
            f"INVALID_ARGUMENT: lrm at {server.address}, predict: {expected}"
        )
        assert not calls

    @pytest.mark.parametrize(
        ("signature", "inputs", "outputs", "expected"),
        [
            ("gone", {}, [], "gone: no such signature; version 1 has detoken"),
            ("tokenize", {"txt": [b""], "text": [b""]}, [], "no input txt"),
            ("tokenize", {}, [], "tokenize: missing input text"),
            ("tokenize", {"text": [b""]}, ["x", "lengths"], "no output x"),
            (
                "generate",
                {"tokens": [[1]]},
                [],
                "missing input max_new_tokens,",
            ),
        ],
    )
    def test_names(
        self, client, connect, server, signature, inputs, outputs, expected
    ):
        with pytest.raises(client.ClientError) as caught:
            connect(server).call(signature, inputs, outputs)
        assert caught.value.code == "INVALID_ARGUMENT"
        assert expected in str(caught.value)

    def test_a_tensor_of_its_own_is_the_servers_to_judge(
        self, client, connect, server
    ):
        proto = tf.make_tensor_proto([[1.0]], tf.float32)
        with pytest.raises(client.ClientError, match="Expects tokens to be"):
            connect(server).call("serving_default", {"tokens": proto})

    def test_memories_above_the_limit_before_they_are_made(
        self, client, connect, server
    ):
        # 644 bytes a lane.
        with pytest.raises(client.ClientError) as caught:
            client.CarriedSession(connect(server), lanes=3_334_602)
        assert str(caught.value) == (
            f"RESOURCE_EXHAUSTED: lrm at {server.address}: a request of "
            "2,147,483,688 bytes is above protobuf's limit of 2,147,483,647; "
            "its largest input is memory_02, 1,467,224,880 bytes"
        )

    def test_a_request_above_the_limit(
        self, client, client_calls, connect, server, monkeypatch, recorded
    ):
        session = client.CarriedSession(connect(server), lanes=3)
        session.predict([[2, 3]] * 3)  # Fresh memories are of a few bytes.
        with recorded(server) as calls:
            session.predict([[2, 3]] * 3)
        size = session._client.calls[-1].request_bytes
        assert size == calls[0][0].ByteSize()
        monkeypatch.setattr(client_calls, "MAX_MESSAGE_BYTES", size)
        session.predict([[2, 3]] * 3)
        monkeypatch.setattr(client_calls, "MAX_MESSAGE_BYTES", size - 1)
        with (
            recorded(server) as calls,
            pytest.raises(client.ClientError) as caught,
        ):
            session.predict([[2, 3]] * 3)
        assert not calls
        largest = session.memories["memory_02"].ByteSize()
        message = str(caught.value)
        assert message.startswith("RESOURCE_EXHAUSTED: lrm at ")
        assert f"a request of {size:,} bytes is above" in message
        assert message.endswith(
            f"its largest input is memory_02, {largest:,} bytes"
        )

    @pytest.mark.parametrize("excess", [0, 1])
    def test_the_limit_is_that_of_protobuf(
        self, client, client_calls, connect, server, monkeypatch, excess
    ):
        class Data:
            def __len__(self):
                return 2**31 - 1 + excess

        def send(method, request, place, retries):
            sent.append(request)
            return b""

        one, sent = connect(server), []
        request = types.SimpleNamespace(
            model_spec=client_calls.predict_pb2.PredictRequest().model_spec,
            inputs=client_calls.predict_pb2.PredictRequest().inputs,
            SerializeToString=Data,
        )
        stub = types.SimpleNamespace(
            PredictRequest=lambda **_: request,
            PredictResponse=client_calls.predict_pb2.PredictResponse,
        )
        monkeypatch.setattr(client_calls, "predict_pb2", stub)
        monkeypatch.setattr(one, "_send", send)
        if not excess:
            assert one.call("serving_default", {"tokens": [[2]]}) == {}
            assert len(sent) == 1
            return
        with pytest.raises(client.ClientError, match="2,147,483,648 bytes"):
            one.call("serving_default", {"tokens": [[2]]})
        assert not sent


def test_messages_above_grpcs_own_limit(client, connect, service, tmp_path):
    class Wide(tf.Module):
        def predict(self, tokens, memory_00):
            logits = tf.cast(tokens, tf.float32)[:, :, None]
            return {"logits": logits, "memory_00": memory_00 + 1}

    specs = {
        "tokens": tf.TensorSpec([None, None], tf.int32, "tokens"),
        "memory_00": tf.TensorSpec([None, 1031, 1033], tf.float32, "memory_00"),
    }
    module = Wide()
    predict = tf.function(module.predict).get_concrete_function(**specs)
    tf.saved_model.save(
        module, str(tmp_path / "1"), signatures={"predict": predict}
    )
    with service.PredictionServer({"lrm": str(tmp_path)}) as server:
        one = connect(server)
        session = client.CarriedSession(one)
        for _ in range(2):
            session.predict([[2]])
    sizes = {call.response_bytes for call in one.calls}
    assert min(sizes) > 4 * 2**20
    values = tf.make_ndarray(session.memories["memory_00"])
    assert (values == 2).all()


@pytest.mark.parametrize("trusted", [True, False])
def test_tls(
    client, connect, service, of_sessions, tmp_path, trusted, make_toy
):
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("openssl makes the certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days"]
        + ["2", "-subj", "/CN=localhost", "-addext"]
        + ["subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())]
    )
    with service.PredictionServer(
        {"lrm": of_sessions}, credentials=credentials
    ) as server:
        if not trusted:
            with pytest.raises(client.ClientError, match="UNAVAILABLE"):
                connect(server, tls=True, retries=0)
            return
        one = connect(server, tls=True, root_certificates=str(certificate))
        session = client.ResidentSession(one)
        assert session.predict([[2]]).tolist() == make_toy().read([2])


class TestRest:
    def test_it_is_the_model(
        self, client, connect, server, service, rest_service, of_bytes
    ):
        tokens = np.random.default_rng(3).integers(0, 256, [3, 7])
        with rest_service.RestServer(server, service.ServiceError) as rest:
            found = client.rest_logits(rest.url, "lrm", tokens)
            same = client.rest_logits(rest.url + "/", "lrm", tokens, version=1)
        over_grpc = connect(server).call("serving_default", {"tokens": tokens})
        expected = client.to_array(over_grpc["logits"])
        assert found.dtype == np.float32
        assert found.tobytes() == same.tobytes() == expected.tobytes()
        fresh = of_bytes.model.initial_memories(3)
        exact, _ = of_bytes.model(tokens.astype("int32"), fresh)
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5)

    @pytest.mark.parametrize(
        ("model", "tokens", "version", "expected"),
        [
            (
                "nmt",
                [[1]],
                None,
                "HTTP_404: {}/v1/models/nmt:predict: Servable",
            ),
            ("lrm", [[1]], 7, "HTTP_404: {}/v1/models/lrm/versions/7:predict:"),
            ("lrm", [[0.5]], None, "HTTP_400: {}/v1/models/lrm:predict: JSON"),
            ("lrm", [[256]], None, "HTTP_400: {}/v1/models/lrm:predict: asse"),
        ],
    )
    def test_errors(
        self,
        client,
        server,
        service,
        rest_service,
        model,
        tokens,
        version,
        expected,
    ):
        with (
            rest_service.RestServer(server, service.ServiceError) as rest,
            pytest.raises(client.ClientError) as caught,
        ):
            client.rest_logits(rest.url, model, tokens, version)
        assert str(caught.value).startswith(expected.format(rest.url))

    def test_there_is_no_server(self, client, unused_port):
        url = f"http://localhost:{unused_port}"
        with pytest.raises(client.ClientError, match="^UNAVAILABLE: http"):
            client.rest_logits(url, "lrm", [[1]])
