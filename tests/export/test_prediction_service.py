"""Tests of the server that the client's tests stand on."""

import json
import threading
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)


class Arithmetic(tf.Module):
    """`scale` has a default, `fail` fails in a way of the caller's choice."""

    def scale(self, values, factor=tf.constant([[3]], tf.int64)):  # noqa: B008
        return {"scaled": values * factor, "total": tf.reduce_sum(values, 1)}

    def fail(self, way):
        unset = tf.raw_ops.VarHandleOp(
            dtype=tf.int32, shape=[], shared_name="never set"
        )

        def checked():
            check = tf.debugging.Assert(way[0] != 1, ["way must not be", way])
            with tf.control_dependencies([check]):
                return tf.identity(way)

        return {
            "way": tf.switch_case(
                way[0],
                [
                    lambda: tf.identity(way),
                    checked,
                    lambda: (
                        tf.raw_ops.ReadVariableOp(
                            resource=unset, dtype=tf.int32
                        )
                        + way
                    ),
                ],
            )
        }

    def echo(self, **values):
        return {name: tf.identity(value) for name, value in values.items()}


DTYPES = [
    "float32",
    "float64",
    "float16",
    "bfloat16",
    "int8",
    "uint8",
    "int32",
    "int64",
    "bool",
    "string",
]
HALF = ["float16", "bfloat16"]
PLAIN = [name for name in DTYPES if name not in HALF]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arithmetic")
    for version in (3, 11):
        module = Arithmetic()
        signatures = {
            "serving_default": tf.function(
                module.scale,
                input_signature=[
                    tf.TensorSpec([None, None], tf.int64, "values"),
                    tf.TensorSpec([1, 1], tf.int64, "factor"),
                ],
            ),
            "fail": tf.function(module.fail).get_concrete_function(
                tf.TensorSpec([1], tf.int32, "way")
            ),
        }
        echoes = {"echo": DTYPES, "plain": PLAIN}
        echoes |= {name: [name] for name in HALF}
        for signature, names in echoes.items():
            specs = {
                name: tf.TensorSpec([None, 3], name, name) for name in names
            }
            signatures[signature] = tf.function(
                module.echo
            ).get_concrete_function(**specs)
        tf.saved_model.save(
            module, str(folder / str(version)), signatures=signatures
        )
    return str(folder)


@pytest.fixture(scope="module")
def arithmetic(service, folder):
    with service.PredictionServer({"toy": folder}, {"old": 3}) as server:
        yield server


@pytest.fixture(scope="module")
def channel(arithmetic):
    with grpc.insecure_channel(arithmetic.address) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def ask(stub, signature="", model="toy", outputs=(), inputs=None, **choice):
    request = predict_pb2.PredictRequest(output_filter=outputs)
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if "version" in choice:
        request.model_spec.version.value = choice["version"]
    if "label" in choice:
        request.model_spec.version_label = choice["label"]
    for name, value in (inputs or {}).items():
        request.inputs[name].CopyFrom(value)
    return stub.Predict(request)


VALUES = {"values": tf.make_tensor_proto([[2, 5, 7]], tf.int64)}
FACTOR = {"factor": tf.make_tensor_proto([[11]], tf.int64)}


def code_of(code, call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code().name == code
    return caught.value.details()


class TestPredict:
    def test_a_default_stands_in(self, stub):
        outputs = ask(stub, inputs=VALUES).outputs
        assert tf.make_ndarray(outputs["scaled"]).tolist() == [[6, 15, 21]]
        outputs = ask(stub, inputs={**VALUES, **FACTOR}).outputs
        assert tf.make_ndarray(outputs["scaled"]).tolist() == [[22, 55, 77]]

    def test_the_answer_says_what_answered(self, stub):
        spec = ask(stub, inputs=VALUES).model_spec
        assert (spec.name, spec.signature_name, spec.version.value) == (
            "toy",
            "serving_default",
            11,
        )
        for choice in ({"version": 3}, {"label": "old"}):
            spec = ask(stub, inputs=VALUES, **choice).model_spec
            assert spec.version.value == 3

    def test_outputs_are_filtered(self, stub):
        outputs = ask(stub, inputs=VALUES, outputs=["total"]).outputs
        assert list(outputs) == ["total"]
        assert tf.make_ndarray(outputs["total"]).tolist() == [14]
        assert sorted(ask(stub, inputs=VALUES).outputs) == ["scaled", "total"]

    @pytest.mark.parametrize(
        ("arguments", "code", "expected"),
        [
            ({"inputs": FACTOR}, "INVALID_ARGUMENT", "alias: values(feed name"),
            (
                {"inputs": {**VALUES, "valeus": VALUES["values"]}},
                "INVALID_ARGUMENT",
                "contains invalid name. Used request inputs: values, request "
                "input: valeus,values",
            ),
            (
                {"inputs": {"values": tf.make_tensor_proto([[2]], tf.int32)}},
                "INVALID_ARGUMENT",
                "Expects values to be int64 but int32 is provided",
            ),
            (
                {"inputs": VALUES, "outputs": ["sum"]},
                "INVALID_ARGUMENT",
                "alias not found in signature: sum",
            ),
            (
                {"inputs": VALUES, "outputs": ["total", "total"]},
                "INVALID_ARGUMENT",
                "duplicate output",
            ),
            ({"model": "tyo"}, "NOT_FOUND", "Latest(tyo)"),
            ({"version": 4}, "NOT_FOUND", "Specific(toy, 4)"),
            ({"label": "new"}, "INVALID_ARGUMENT", "version label: new"),
            ({"model": ""}, "INVALID_ARGUMENT", "has no name"),
            ({"signature": "scale"}, "FAILED_PRECONDITION", '"scale" not fou'),
            ({"signature": "__saved_model_init_op"}, "INTERNAL", "method_name"),
        ],
    )
    def test_refusals(self, stub, arguments, code, expected):
        assert expected in code_of(code, lambda: ask(stub, **arguments))

    def test_no_spec(self, stub):
        request = predict_pb2.PredictRequest()
        found = code_of("INVALID_ARGUMENT", lambda: stub.Predict(request))
        assert found == "Missing ModelSpec"

    @pytest.mark.parametrize("kind", ["content", "size", "dtype", "resource"])
    def test_malformed_tensors(self, stub, kind):
        proto = tf.make_tensor_proto(np.array([[2, 5]]), tf.int64)
        if kind == "content":
            proto.tensor_content = proto.tensor_content[:-1]
        elif kind == "size":
            proto.tensor_shape.dim[0].size = -2
        elif kind == "dtype":
            proto.dtype = 0
        else:
            proto.dtype = tf.resource.as_datatype_enum
        found = code_of(
            "INVALID_ARGUMENT", lambda: ask(stub, inputs={"values": proto})
        )
        assert found in (
            "tensor parsing error: values",
            "Expects values to be int64 but resource is provided",
        )
        assert (kind == "resource") or found.startswith("tensor parsing")

    def test_a_value_that_stands_for_all(self, stub):
        proto = tf.make_tensor_proto([[2]], tf.int64)
        proto.tensor_shape.dim[1].size = 5
        outputs = ask(stub, inputs={"values": proto}).outputs
        assert tf.make_ndarray(outputs["total"]).tolist() == [10]

    @pytest.mark.parametrize(
        ("way", "code", "expected"),
        [
            ([1], "INVALID_ARGUMENT", "way must not be"),
            ([2], "FAILED_PRECONDITION", "never set"),
        ],
    )
    def test_errors_of_the_graph_keep_their_codes(
        self, stub, way, code, expected
    ):
        inputs = {"way": tf.make_tensor_proto(way, tf.int32)}
        assert expected in code_of(
            code, lambda: ask(stub, "fail", inputs=inputs)
        )

    def test_shapes_are_the_graphs_to_judge(self, stub):
        # Another than the signature's, which no runtime compares.
        inputs = {"way": tf.make_tensor_proto([0, 5], tf.int32)}
        outputs = ask(stub, "fail", inputs=inputs).outputs
        assert tf.make_ndarray(outputs["way"]).tolist() == [0, 5]

    @pytest.mark.parametrize("as_fields", [False, True])
    def test_both_encodings_of_every_dtype(self, service, folder, as_fields):
        values = np.array([[-3, 0, 117], [1, -128, 7]])
        inputs = {
            name: tf.make_tensor_proto(
                np.abs(values) if name == "uint8" else values, name
            )
            if name != "string"
            else tf.make_tensor_proto(values.astype("S"), name)
            for name in DTYPES
        }
        with (
            service.PredictionServer(
                {"toy": folder}, as_fields=as_fields
            ) as server,
            grpc.insecure_channel(server.address) as channel,
        ):
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            outputs = ask(stub, "echo", inputs=inputs).outputs
        for name in DTYPES:
            found = tf.make_ndarray(outputs[name])
            expected = tf.make_ndarray(inputs[name])
            assert found.dtype == expected.dtype
            assert found.tolist() == expected.tolist()
            has_content = bool(outputs[name].tensor_content)
            assert has_content == (not as_fields and name != "string")

    def test_eight_run_at_once(self, arithmetic, stub):
        barrier, found = threading.Barrier(8, timeout=60), {}

        def around(request, answer):
            barrier.wait()
            return answer()

        def run(value):
            inputs = {"values": tf.make_tensor_proto([[value]], tf.int64)}
            outputs = ask(stub, inputs=inputs).outputs
            found[value] = int(tf.make_ndarray(outputs["total"])[0])

        arithmetic.around = around
        threads = [
            threading.Thread(target=run, args=[value]) for value in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        arithmetic.around = None
        assert found == {value: value for value in range(8)}


class TestOtherMethods:
    def test_metadata(self, arithmetic, stub):
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            metadata_field=["signature_def"]
        )
        request.model_spec.name = "toy"
        response = stub.GetModelMetadata(request)
        assert response.model_spec.version.value == 11
        found = get_model_metadata_pb2.SignatureDefMap()
        assert response.metadata["signature_def"].Unpack(found)
        names = {"serving_default", "fail", "echo", "plain", *HALF}
        names.add("__saved_model_init_op")
        assert set(found.signature_def) == names
        assert list(found.signature_def["serving_default"].defaults) == [
            "factor"
        ]
        request.metadata_field[0] = "graph"
        details = code_of(
            "INVALID_ARGUMENT", lambda: stub.GetModelMetadata(request)
        )
        assert "is not supported" in details

    def test_status(self, channel):
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "toy"
        found = stub.GetModelStatus(request).model_version_status
        assert [status.version for status in found] == [11, 3]
        assert {status.state for status in found} == {
            get_model_status_pb2.ModelVersionStatus.AVAILABLE
        }
        request.model_spec.version.value = 4
        details = code_of("NOT_FOUND", lambda: stub.GetModelStatus(request))
        assert details == "Could not find version 4 of model toy"

    def test_the_rest_is_unimplemented(self, stub):
        for method, request in (
            (stub.Classify, classification_pb2.ClassificationRequest()),
            (stub.Regress, regression_pb2.RegressionRequest()),
            (stub.MultiInference, inference_pb2.MultiInferenceRequest()),
        ):
            code_of("UNIMPLEMENTED", lambda m=method, r=request: m(r))


def test_what_is_restarted_has_forgotten(service, of_sessions):
    inputs = {
        "tokens": tf.make_tensor_proto([[2, 3]], tf.int32),
        "session_id": tf.make_tensor_proto([5], tf.int64),
        "position": tf.make_tensor_proto([0], tf.int32),
    }
    next_inputs = {**inputs, "position": tf.make_tensor_proto([2], tf.int32)}
    with service.PredictionServer({"toy": of_sessions}) as server:
        port = server.port
        with grpc.insecure_channel(server.address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            ask(stub, "session_step", inputs=inputs)
            ask(stub, "session_step", inputs=next_inputs)
            server.stop()
            code_of("UNAVAILABLE", lambda: ask(stub, "session_step"))
        server.start()
        assert server.port == port
        with grpc.insecure_channel(server.address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            code_of(
                "FAILED_PRECONDITION",
                lambda: ask(stub, "session_step", inputs=next_inputs),
            )
            ask(stub, "session_step", inputs=inputs)


class TestRest:
    @pytest.fixture(scope="class")
    def url(self, arithmetic, service, rest_service):
        with rest_service.RestServer(arithmetic, service.ServiceError) as rest:
            yield rest.url

    @pytest.fixture
    def fetch(self, url):
        """Returns (status, JSON)."""

        def call(path, body=None):
            if body is not None and not isinstance(body, bytes):
                body = json.dumps(body).encode()
            try:
                with urllib.request.urlopen(url + path, body) as response:
                    assert response.headers["Content-Type"] == (
                        "application/json"
                    )
                    return response.status, json.load(response)
            except urllib.error.HTTPError as error:
                return error.code, json.load(error)

        return call

    def test_columns_and_rows(self, fetch):
        values = [[2, 5], [7, 11]]
        path = "/v1/models/toy:predict"
        columns = {"inputs": {"values": values, "factor": [[3]]}}
        assert fetch(path, columns) == (
            200,
            {"outputs": {"scaled": [[6, 15], [21, 33]], "total": [7, 18]}},
        )
        rows = {"instances": [{"values": [2, 5], "factor": [3]}]}
        assert fetch(path, rows) == (
            200,
            {"predictions": [{"scaled": [6, 15], "total": 7}]},
        )

    @pytest.mark.parametrize("choice", ["", "/versions/3", "/labels/old"])
    def test_one_input_and_one_output_need_no_name(self, fetch, choice):
        path = f"/v1/models/toy{choice}:predict"
        body = {"signature_name": "fail", "inputs": [0]}
        assert fetch(path, body) == (200, {"outputs": [0]})
        body = {"signature_name": "fail", "instances": [0]}
        assert fetch(path, body) == (200, {"predictions": [0]})

    def test_status_and_metadata(self, fetch):
        assert fetch("/v1/models/toy/versions/3") == (
            200,
            {
                "model_version_status": [
                    {
                        "version": "3",
                        "state": "AVAILABLE",
                        "status": {"error_code": "OK", "error_message": ""},
                    }
                ]
            },
        )
        status, found = fetch("/v1/models/toy")
        versions = [each["version"] for each in found["model_version_status"]]
        assert (status, versions) == (200, ["11", "3"])
        status, found = fetch("/v1/models/toy/metadata")
        assert status == 200
        assert found["model_spec"]["version"] == "11"
        signatures = found["metadata"]["signature_def"]["signature_def"]
        assert signatures["fail"]["inputs"]["way"]["dtype"] == "DT_INT32"

    @pytest.mark.parametrize(
        ("path", "body", "status", "expected"),
        [
            ("/v1/models/toy:predict", b"{", 400, "JSON Parse error"),
            ("/v1/models/toy:predict", [], 400, "is not object"),
            ("/v1/models/toy:predict", {}, 400, "'inputs' or 'instances'"),
            (
                # A default does not stand in over REST.
                "/v1/models/toy:predict",
                {"inputs": {"values": [[1]]}},
                400,
                "Missing named input: factor",
            ),
            ("/v1/models/toy:predict", {"inputs": [[1]]}, 400, "plain value"),
            (
                "/v1/models/toy:predict",
                {"inputs": {"values": [[0.5]], "factor": [[1]]}},
                400,
                "not of expected type: int64",
            ),
            (
                "/v1/models/toy:predict",
                {"inputs": {"values": [[1], [2, 3]], "factor": [[1]]}},
                400,
                "not of expected type: int64",
            ),
            (
                "/v1/models/toy:predict",
                {"instances": [{"values": [1]}]},
                400,
                "must only have keys: factor,values",
            ),
            (
                "/v1/models/toy:predict",
                {"signature_name": "fail", "inputs": [1]},
                400,
                "way must not be",
            ),
            (
                "/v1/models/toy:predict",
                {"signature_name": "fail", "inputs": [2]},
                412,
                "never set",
            ),
            ("/v1/models/tyo:predict", {"inputs": []}, 404, "Latest(tyo)"),
            ("/v1/models/toy/versions/4", None, 404, "Could not find version"),
            ("/v1/models/toy:predict", None, 400, "Malformed request: GET"),
            ("/v2/models/toy", None, 400, "Malformed request: GET /v2"),
        ],
    )
    def test_errors(self, fetch, path, body, status, expected):
        found, content = fetch(path, body)
        assert found == status
        assert list(content) == ["error"]
        assert expected in content["error"]

    def test_json_of_every_dtype(self, fetch):
        values = {name: [[5, 0, 117]] for name in PLAIN}
        values |= {"float32": [[0.1, -2.5, 3.0]], "float64": [[0.1, 1e300, 0]]}
        values |= {"bool": [[True, False, True]], "string": [["a", "é", ""]]}
        body = {"signature_name": "plain", "inputs": values}
        status, content = fetch("/v1/models/toy:predict", body)
        assert status == 200
        found = content["outputs"]
        single = np.float32(found.pop("float32"))
        assert single.tolist() == np.float32(values.pop("float32")).tolist()
        assert found == values

    @pytest.mark.parametrize("name", HALF)
    def test_half_precision_has_no_json(self, fetch, name):
        body = {"signature_name": name, "inputs": [[1, 0, 1]]}
        status, content = fetch("/v1/models/toy:predict", body)
        assert status == 501
        assert content["error"] == f"No JSON value is of type {name}"
