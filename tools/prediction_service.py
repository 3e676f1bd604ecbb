"""What TensorFlow Serving does with requests, in Python: for tests and timings.

SavedModels are loaded by TensorFlow's own loader into a session, tensors are
read by its own parser, and calls go into the session's callables, as TF
Serving's do; there is no batching. The checks, codes and messages of the
predict path follow `tensorflow::saved_model::GetInputValues` and TF Serving's
`predict_util.cc`, but for a wrong dtype: TF Serving counts the arguments
(`Expects arg[2] to be …`), this names the input.

    python tools/prediction_service.py exports/first

serves the versions in a folder as the model `lrm`, prints its port, and ends
with its standard input. It is no server for users.
"""

import concurrent.futures
import os
import sys
import threading

import grpc
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_METHODS = {
    f"tensorflow/serving/{name}" for name in ("predict", "classify", "regress")
}
_FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "float16": "half_val",
    "bfloat16": "half_val",
    "int8": "int_val",
    "uint8": "int_val",
    "int32": "int_val",
    "int64": "int64_val",
    "bool": "bool_val",
    "string": "string_val",
}


class ServiceError(Exception):
    """An error that a client gets.

    Args:
        code: name of a grpc.StatusCode.
        message: its details.
    """

    def __init__(self, code, message):
        super().__init__(message)
        self.code = grpc.StatusCode[code]


class LoadedModel:
    """One version of a model, in a session of its own."""

    def __init__(self, path):
        graph = tf.Graph()
        with graph.as_default():
            self._session = tf.compat.v1.Session(graph=graph)
            self.signatures = tf.compat.v1.saved_model.loader.load(
                self._session, ["serve"], path
            ).signature_def
        self._callables = {}
        self._lock = threading.Lock()

    def close(self):
        self._session.close()

    def run(self, name, inputs, output_filter):
        """TensorProtos by name in, arrays by name out."""
        signature = self.signature(name)
        if signature.method_name not in _METHODS:
            raise ServiceError(
                "INTERNAL", f"method_name was: {signature.method_name}"
            )
        feeds = _input_values(signature, inputs)
        for alias in output_filter:
            if alias not in signature.outputs:
                raise ServiceError(
                    "INVALID_ARGUMENT",
                    f"output tensor alias not found in signature: {alias} "
                    f"Outputs expected to be in the set "
                    f"{{{','.join(sorted(signature.outputs))}}}.",
                )
        if len(set(output_filter)) < len(output_filter):
            raise ServiceError(
                "INVALID_ARGUMENT", f"duplicate output: {list(output_filter)}"
            )
        aliases = sorted(output_filter or signature.outputs)
        fetches = [signature.outputs[alias].name for alias in aliases]
        try:
            values = self._callable(list(feeds), fetches)(*feeds.values())
        except tf.errors.OpError as error:
            raise ServiceError(
                _CODES[error.error_code].name, error.message
            ) from None
        return dict(zip(aliases, values, strict=True))

    def signature(self, name):
        name = name or "serving_default"
        if name not in self.signatures:
            raise ServiceError(
                "FAILED_PRECONDITION",
                f'Serving signature key "{name}" not found.',
            )
        return self.signatures[name]

    def _callable(self, feeds, fetches):
        # `Session.run` would cast, and compare shapes, which a server's
        # session does not.
        key = (*feeds, None, *fetches)
        with self._lock:
            if key not in self._callables:
                options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
                self._callables[key] = (
                    self._session._make_callable_from_options(options)
                )
            return self._callables[key]


def _input_values(signature, inputs):
    feeds, used = {}, set()
    for alias, info in signature.inputs.items():
        if alias in inputs:
            proto = inputs[alias]
            used.add(alias)
        elif alias in signature.defaults:
            proto = signature.defaults[alias]
        else:
            raise ServiceError(
                "INVALID_ARGUMENT",
                f"Signature input alias: {alias}(feed name: {info.name}) not "
                "found in request and no default value provided. Inputs "
                f"expected to be in the request {{{','.join(inputs)}}}, or "
                f"default input alias set: {','.join(signature.defaults)}",
            )
        try:
            # Tensor::FromProto.
            value = tf.io.parse_tensor(
                proto.SerializeToString(), tf.as_dtype(proto.dtype)
            )
        except (tf.errors.InvalidArgumentError, TypeError):
            raise ServiceError(
                "INVALID_ARGUMENT", f"tensor parsing error: {alias}"
            ) from None
        if proto.dtype != info.dtype:
            raise ServiceError(
                "INVALID_ARGUMENT",
                f"Expects {alias} to be {tf.as_dtype(info.dtype).name} but "
                f"{value.dtype.name} is provided",
            )
        feeds[info.name] = value.numpy()
    if len(used) != len(inputs):
        raise ServiceError(
            "INVALID_ARGUMENT",
            "Inputs contains invalid name. Used request inputs: "
            f"{','.join(sorted(used))}, request input: "
            f"{','.join(sorted(inputs))}",
        )
    return feeds


def to_proto(array, dtype, as_fields):
    """Writes a TensorProto in either of TF Serving's two encodings."""
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if dtype == tf.string:
        proto.string_val.extend(array.ravel().tolist())
    elif not as_fields:
        proto.tensor_content = array.tobytes()
    else:
        field = _FIELDS[dtype.name]
        if field == "half_val":
            array = array.view("uint16")
        getattr(proto, field).extend(array.ravel().tolist())
    return proto


class PredictionServer(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    """Serves all versions of models over gRPC on a port of its own.

    What is started anew on the same port has loaded its models anew.

    Args:
        models: dict of name -> folder of `<integer>/` versions.
        labels: dict of label -> version.
        as_fields: answer with typed fields, TF Serving's default, rather than
            with `tensor_content`.
        credentials: grpc.ServerCredentials, or None for no encryption.
        workers: requests that run at once.

    Attributes:
        port: of gRPC; chosen at the first start.
        around: None, or function of (request, answer) that stands around each
            call: `answer()` carries it out and returns the response.
    """

    def __init__(
        self, models, labels=None, as_fields=False, credentials=None, workers=8
    ):
        self.as_fields = as_fields
        self.around = None
        self.port = 0
        self._folders = dict(models)
        self._labels = dict(labels or {})
        self._credentials = credentials
        self._workers = workers
        self._server = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def address(self):
        return f"localhost:{self.port}"

    def start(self):
        self._models = {
            name: {
                int(entry): LoadedModel(os.path.join(folder, entry))
                for entry in os.listdir(folder)
                if entry.isdecimal()
            }
            for name, folder in self._folders.items()
        }
        self._threads = concurrent.futures.ThreadPoolExecutor(self._workers)
        self._server = grpc.server(
            self._threads,
            options=[
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
            ],
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            self, self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            self, self._server
        )
        address = f"localhost:{self.port}"
        if self._credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, self._credentials)
        self._server.start()

    def stop(self):
        if self._server is None:
            return
        self._server.stop(None).wait()
        self._threads.shutdown()
        for versions in self._models.values():
            for model in versions.values():
                model.close()
        self._server = None

    def find(self, spec):
        """(version, LoadedModel) of a ModelSpec."""
        if not spec.name:
            raise ServiceError(
                "INVALID_ARGUMENT", "ModelSpec has no name specified."
            )
        versions = self._models.get(spec.name, {})
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label":
            if spec.version_label not in self._labels:
                raise ServiceError(
                    "INVALID_ARGUMENT",
                    f"Unrecognized servable version label: "
                    f"{spec.version_label}",
                )
            version = self._labels[spec.version_label]
        elif choice == "version":
            version = spec.version.value
        else:
            version = max(versions, default=None)
        if version not in versions:
            wanted = f"Latest({spec.name})"
            if version is not None:
                wanted = f"Specific({spec.name}, {version})"
            raise ServiceError(
                "NOT_FOUND", f"Servable not found for request: {wanted}"
            )
        return version, versions[version]

    def predict(self, request):
        """Answers a PredictRequest, or raises ServiceError."""
        if not request.HasField("model_spec"):
            raise ServiceError("INVALID_ARGUMENT", "Missing ModelSpec")
        version, model = self.find(request.model_spec)
        name = request.model_spec.signature_name or "serving_default"
        arrays = model.run(name, request.inputs, request.output_filter)
        infos = model.signature(name).outputs
        response = predict_pb2.PredictResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.signature_name = name
        response.model_spec.version.value = version
        for alias, array in arrays.items():
            dtype = tf.as_dtype(infos[alias].dtype)
            proto = to_proto(array, dtype, self.as_fields)
            response.outputs[alias].CopyFrom(proto)
        return response

    def metadata(self, spec):
        version, model = self.find(spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = version
        found = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in model.signatures.items():
            found.signature_def[name].CopyFrom(signature)
        response.metadata["signature_def"].Pack(found)
        return response

    def status(self, spec):
        versions = self._models.get(spec.name, {})
        if spec.HasField("version"):
            wanted = spec.version.value
            versions = {wanted} & versions.keys()
            problem = f"version {wanted} of model {spec.name}"
        else:
            problem = f"any versions of model {spec.name}"
        if not versions:
            raise ServiceError("NOT_FOUND", f"Could not find {problem}")
        response = get_model_status_pb2.GetModelStatusResponse()
        for version in sorted(versions, reverse=True):
            entry = response.model_version_status.add(version=version)
            entry.state = get_model_status_pb2.ModelVersionStatus.AVAILABLE
            entry.status.SetInParent()
        return response

    def Predict(self, request, context):
        def answer():
            return self.predict(request)

        around = self.around or (lambda request, answer: answer())
        return _or_abort(context, lambda: around(request, answer))

    def GetModelMetadata(self, request, context):
        def answer():
            if list(request.metadata_field) != ["signature_def"]:
                raise ServiceError(
                    "INVALID_ARGUMENT",
                    f"Metadata field {list(request.metadata_field)} is not "
                    "supported",
                )
            return self.metadata(request.model_spec)

        return _or_abort(context, answer)

    def GetModelStatus(self, request, context):
        return _or_abort(context, lambda: self.status(request.model_spec))


def _or_abort(context, answer):
    try:
        return answer()
    except ServiceError as error:
        context.abort(error.code, str(error))


if __name__ == "__main__":
    with PredictionServer({"lrm": sys.argv[1]}) as running:
        print(running.port, flush=True)
        sys.stdin.read()
