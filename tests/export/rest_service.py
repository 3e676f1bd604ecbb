"""TF Serving's REST API, in the test process, over a PredictionServer.

Paths, JSON and errors follow TF Serving's `api_rest.md` and `json_tensor.cc`:
no output filter, no defaults, neither bfloat16 nor float16.
"""

import http.server
import json
import re
import threading

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.FAILED_PRECONDITION: 412,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
}
_PATH = re.compile(
    r"/v1/models/(?P<name>[^/:]+)"
    r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
    r"(?P<verb>:predict|/metadata)?"
)


class RestServer:
    """Answers HTTP on a port of its own.

    Args:
        server: a started PredictionServer.
        service_error: its ServiceError.
    """

    def __init__(self, server, service_error):
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self._answer("GET", b"")

            def do_POST(self):
                length = int(self.headers["Content-Length"])
                self._answer("POST", self.rfile.read(length))

            def _answer(self, method, body):
                try:
                    status, content = 200, owner.answer(method, self.path, body)
                except service_error as error:
                    status = _STATUS.get(error.code, 500)
                    content = {"error": str(error)}
                content = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self._server, self._error = server, service_error
        self._http = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever)
        self.url = f"http://localhost:{self._http.server_port}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def answer(self, method, path, body):
        """The JSON that answers a request, or ServiceError."""
        match = _PATH.fullmatch(path)
        verb = match and match["verb"]
        if not match or (method == "POST") != (verb == ":predict"):
            raise self._refused(f"Malformed request: {method} {path}")
        request = predict_pb2.PredictRequest()
        spec = request.model_spec
        spec.name = match["name"]
        if match["version"]:
            spec.version.value = int(match["version"])
        elif match["label"]:
            spec.version_label = match["label"]
        if verb == ":predict":
            return self._predict(request, body)
        if not verb:
            return _to_json(self._server.status(spec))
        response = self._server.metadata(spec)
        found = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(found)
        return {
            "model_spec": _to_json(response.model_spec),
            "metadata": {"signature_def": _to_json(found)},
        }

    def _refused(self, message, code="INVALID_ARGUMENT"):
        return self._error(code, message)

    def _predict(self, request, body):
        try:
            content = json.loads(body)
        except ValueError as error:
            raise self._refused(f"JSON Parse error: {error}") from None
        if not isinstance(content, dict):
            raise self._refused("JSON Value: is not object")
        keys = {"inputs", "instances"} & content.keys()
        if len(keys) != 1:
            raise self._refused("expecting one of 'inputs' or 'instances' keys")
        (key,) = keys
        name = content.get("signature_name", "serving_default")
        request.model_spec.signature_name = name
        _, model = self._server.find(request.model_spec)
        infos = model.signature(name).inputs
        values = content[key]
        if key == "instances":
            values = self._columns(values, infos)
        elif not isinstance(values, dict):
            values = self._only(infos, values)
        for alias in sorted(infos):
            if alias not in values:
                raise self._refused(
                    f"Missing named input: {alias} in 'inputs' object."
                )
            self._set(request.inputs[alias], values[alias], infos[alias])
        response = self._server.predict(request)
        outputs = {
            alias: self._json(proto)
            for alias, proto in response.outputs.items()
        }
        if key == "inputs":
            return {"outputs": _unnamed(outputs)}
        if len({len(rows) for rows in outputs.values()}) > 1:
            raise self._refused("Tensors have inconsistent 0th dimension sizes")
        rows = zip(*outputs.values(), strict=True)
        return {
            "predictions": [
                _unnamed(dict(zip(outputs, row, strict=True))) for row in rows
            ]
        }

    def _only(self, infos, value):
        if len(infos) > 1:
            raise self._refused(
                "inputs is a plain value/list, but expecting an object as "
                "multiple input tensors required as per tensorinfo_map"
            )
        return {next(iter(infos)): value}

    def _columns(self, rows, infos):
        if not isinstance(rows, list) or not rows:
            raise self._refused("Expecting 'instances' to be a filled list")
        if not isinstance(rows[0], dict):
            return self._only(infos, rows)
        if any(row.keys() != set(infos) for row in rows):
            raise self._refused(
                "Failed to process element of 'instances' list: must only "
                f"have keys: {','.join(sorted(infos))}"
            )
        return {alias: [row[alias] for row in rows] for alias in infos}

    def _set(self, proto, value, info):
        dtype = self._jsonable(tf.as_dtype(info.dtype))
        try:
            array = np.array(value)
        except ValueError:
            array = np.array(None)  # Ragged.
        kinds = {"i": "iu", "u": "iu", "f": "iuf", "b": "b", "O": "U"}
        wanted = kinds[np.dtype(dtype.as_numpy_dtype).kind]
        if array.size and array.dtype.kind not in wanted:
            raise self._refused(
                f"JSON Value: {json.dumps(value)} is not of expected type: "
                f"{dtype.name}"
            )
        if dtype == tf.string:
            array = np.char.encode(array).astype(object)
        else:
            array = array.astype(dtype.as_numpy_dtype)
        proto.CopyFrom(tf.make_tensor_proto(array, dtype))

    def _json(self, proto):
        dtype = self._jsonable(tf.as_dtype(proto.dtype))
        array = tf.make_ndarray(proto)
        if dtype == tf.string:
            return np.char.decode(array.astype(bytes)).tolist()
        return array.tolist()

    def _jsonable(self, dtype):
        if dtype in (tf.bfloat16, tf.float16):
            raise self._refused(
                f"No JSON value is of type {dtype.name}", "UNIMPLEMENTED"
            )
        return dtype


def _unnamed(values):
    return next(iter(values.values())) if len(values) == 1 else values


def _to_json(message):
    return json_format.MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
