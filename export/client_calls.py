"""Calls any signature of any model in TensorFlow Serving.

A call that found the server UNAVAILABLE, or all of its threads at work, is sent
again, with growing pauses, as long as its time lasts. Other errors are the
caller's to judge: any other RESOURCE_EXHAUSTED is too large a message or too
full a device, which stay so (a full batching queue is UNAVAILABLE), and after
DEADLINE_EXCEEDED the server may still be at work, to which a repeat would add.

client_sessions.py, beside this file, keeps texts and their memories with it.
"""

import collections
import contextlib
import http.client
import itertools
import json
import math
import random
import time
import urllib.error
import urllib.request

import grpc
import numpy as np
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

#: protobuf's own limit, which no option of gRPC lifts.
MAX_MESSAGE_BYTES = 2**31 - 1

_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),  # 4 MB otherwise
    ("grpc.max_send_message_length", -1),
    # A server closes connections that ping more often than every 5 minutes,
    # or at all without a call.
    ("grpc.keepalive_time_ms", 305_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Repeats are this file's, and reconnecting must not outlast its pauses.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 4_000),
]
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0  # seconds

# What gRPC in C++ answers when more calls come than there are threads
# (--grpc_max_threads), with RESOURCE_EXHAUSTED. They were not begun.
_NO_THREAD = "Server Threadpool Exhausted"

# NumPy's dtype and TensorProto's field of what can be read and written. Others,
# which memories may have, are only carried.
_DTYPES = {
    types_pb2.DT_FLOAT: (np.float32, "float_val"),
    types_pb2.DT_INT32: (np.int32, "int_val"),
    types_pb2.DT_INT64: (np.int64, "int64_val"),
    types_pb2.DT_BOOL: (np.bool_, "bool_val"),
    types_pb2.DT_STRING: (np.object_, "string_val"),
}

#: An answered call: seconds with its repeats, sizes in bytes.
Call = collections.namedtuple(
    "Call", ["signature", "seconds", "request_bytes", "response_bytes"]
)


class ClientError(RuntimeError):
    """What went wrong, in one line.

    Attributes:
        code: name of the gRPC status code; `HTTP_404` and the like over REST.
        details: the line without code and place.
    """

    def __init__(self, code, place, details):
        self.code = code
        self.details = " ".join(str(details).split())
        super().__init__(f"{code}: {place}: {self.details}")


class Client:
    """One model of one server, in the version that it has at this moment.

    Memories belong to the version that made them, so a client keeps to it; a
    new one meets the newest. Threads may share it.

    Args:
        server: `host:port` of gRPC.
        model: its name in the server.
        version: number; None = the newest.
        version_label: instead of `version`.
        timeout: seconds for a call with its repeats.
        retries: how often a call is sent again; 0 = never.
        tls: whether the connection is encrypted.
        root_certificates: PEM file for `tls`; None = gRPC's own.

    Attributes:
        version: number.
        signatures: dict of SignatureDef.
        calls: the latest 10,000 answered calls, each a `Call`.

    Raises:
        ClientError: if the server cannot be reached or lacks the model.
        OSError: if the certificates cannot be read.
    """

    def __init__(
        self,
        server,
        model="lrm",
        version=None,
        version_label=None,
        timeout=60.0,
        retries=8,
        tls=False,
        root_certificates=None,
    ):
        self.place = f"{model} at {server}"
        self.calls = collections.deque(maxlen=10_000)
        self._model, self._timeout, self._retries = model, timeout, retries
        if tls:
            roots = None
            if root_certificates:
                with open(root_certificates, "rb") as stream:
                    roots = stream.read()
            self._channel = grpc.secure_channel(
                server, grpc.ssl_channel_credentials(roots), _CHANNEL_OPTIONS
            )
        else:
            self._channel = grpc.insecure_channel(server, _CHANNEL_OPTIONS)
        stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        # Bytes in and out: a request is serialized once, however often it is
        # sent, and its size is known.
        self._predict = self._channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict"
        )
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            metadata_field=["signature_def"]
        )
        request.model_spec.name = model
        if version is not None:
            request.model_spec.version.value = version
        elif version_label is not None:
            request.model_spec.version_label = version_label
        try:
            response = self._send(
                stub.GetModelMetadata, request, self.place, retries
            )
        except ClientError:
            self.close()
            raise
        found = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(found)
        self.version = response.model_spec.version.value
        self.signatures = {
            name: definition
            for name, definition in found.signature_def.items()
            if not name.startswith("__")  # of initialization
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Closes the connection."""
        self._channel.close()

    def call(self, signature, inputs, outputs=(), retries=None) -> dict:
        """Calls a signature.

        Args:
            signature: its name.
            inputs: dict of arrays, or of TensorProtos, which go as they are.
            outputs: names of what is to be sent back; none = all.
            retries: other than the client's.

        Returns:
            Dict of TensorProtos; `to_array` reads one.

        Raises:
            ClientError: for inputs that the signature does not take, a request
                above `MAX_MESSAGE_BYTES`, and whatever the server answers.
        """
        place = f"{self.place}, {signature}"
        definition = self.signatures.get(signature)
        if definition is None:
            raise ClientError(
                "INVALID_ARGUMENT",
                place,
                f"no such signature; version {self.version} has "
                f"{', '.join(sorted(self.signatures))}",
            )
        required = set(definition.inputs) - set(definition.defaults)
        for problem, names in (
            ("no input", inputs.keys() - set(definition.inputs)),
            ("missing input", required - inputs.keys()),
            ("no output", set(outputs) - set(definition.outputs)),
        ):
            if names:
                details = f"{problem} {', '.join(sorted(names))}"
                raise ClientError("INVALID_ARGUMENT", place, details)
        request = predict_pb2.PredictRequest(output_filter=outputs)
        request.model_spec.name = self._model
        request.model_spec.signature_name = signature
        request.model_spec.version.value = self.version
        for name, value in inputs.items():
            if not isinstance(value, tensor_pb2.TensorProto):
                try:
                    value = to_tensor(value, definition.inputs[name])
                except ValueError as error:
                    raise ClientError(
                        "INVALID_ARGUMENT", place, f"{name} {error}"
                    ) from None
            request.inputs[name].CopyFrom(value)
        data = request.SerializeToString()
        if len(data) > MAX_MESSAGE_BYTES:
            sizes = {key: request.inputs[key].ByteSize() for key in inputs}
            raise too_large(place, len(data), sizes)
        start = time.monotonic()
        retries = self._retries if retries is None else retries
        answer = self._send(self._predict, data, place, retries)
        seconds = time.monotonic() - start
        self.calls.append(Call(signature, seconds, len(data), len(answer)))
        return dict(predict_pb2.PredictResponse.FromString(answer).outputs)

    def _send(self, method, request, place, retries):
        deadline = time.monotonic() + self._timeout
        for attempt in itertools.count():
            try:
                return method(request, timeout=deadline - time.monotonic())
            except grpc.RpcError as error:
                pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
                # Clients that lost one server must not return all at once.
                pause *= random.uniform(0.5, 1)
                details = error.details() or ""
                passes = (
                    error.code() is grpc.StatusCode.UNAVAILABLE
                    or details == _NO_THREAD
                )
                if (
                    not passes
                    or attempt >= retries
                    or time.monotonic() + pause >= deadline
                ):
                    # What follows names a node of the graph.
                    details = details.split("[[{{")[0].rstrip()
                    if attempt:
                        details += f" (sent {attempt + 1} times)"
                    raise ClientError(
                        error.code().name, place, details
                    ) from None
            time.sleep(pause)


def too_large(place, total, sizes) -> ClientError:
    """The error of a request above `MAX_MESSAGE_BYTES`.

    Args:
        place: what was called.
        total: bytes of the request.
        sizes: dict of the bytes of each input.
    """
    name = max(sizes, key=sizes.get)
    return ClientError(
        "RESOURCE_EXHAUSTED",
        place,
        f"a request of {total:,} bytes is above protobuf's limit of "
        f"{MAX_MESSAGE_BYTES:,}; its largest input is {name}, "
        f"{sizes[name]:,} bytes",
    )


def sizes_of(info) -> list[int]:
    """The shape of a TensorInfo or TensorProto; -1 = any size."""
    return [dim.size for dim in info.tensor_shape.dim]


def to_tensor(values, info):
    """Makes a TensorProto that a signature takes.

    Args:
        values: array or nested list; of bytes for strings.
        info: TensorInfo of the input.

    Raises:
        ValueError: "must be …" for another dtype or shape than the input's.
    """
    sizes, dtype = sizes_of(info), _DTYPES.get(info.dtype, (None,))[0]
    wanted = types_pb2.DataType.Name(info.dtype).removeprefix("DT_").lower()
    array = np.asarray(values, object if dtype is np.object_ else None)
    if len(sizes) != array.ndim or any(
        size not in (-1, found)
        for size, found in zip(sizes, array.shape, strict=True)
    ):
        wanted = f"{wanted} of shape {sizes}".replace("-1", "?")
        raise ValueError(f"must be {wanted}; got shape {list(array.shape)}")
    proto = tensor_pb2.TensorProto(dtype=info.dtype)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if dtype is np.object_:
        proto.string_val.extend(array.ravel().tolist())
        return proto
    if not array.size and dtype:
        return proto  # A list of nothing would be of float64.
    if dtype is None or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ValueError(f"must be {wanted}; got {array.dtype}")
    cast = array.astype(dtype)
    if array.dtype.kind in "iu" and not np.array_equal(cast, array):
        raise ValueError(
            f"must be {wanted}; got values from {array.min()} to {array.max()}"
        )
    proto.tensor_content = cast.tobytes()
    return proto


def to_array(proto):
    """Reads a TensorProto in either of its encodings.

    Raises:
        ValueError: for a dtype that is only carried.
    """
    if proto.dtype not in _DTYPES:
        name = types_pb2.DataType.Name(proto.dtype)
        raise ValueError(f"cannot read {name}")
    dtype, field = _DTYPES[proto.dtype]
    shape = sizes_of(proto)
    if proto.tensor_content:
        return np.frombuffer(proto.tensor_content, dtype).reshape(shape)
    values = np.array(getattr(proto, field), dtype)
    # The last value may stand for all that follow it, none for zeros.
    missing = math.prod(shape) - values.size
    if missing > 0:
        zero = b"" if dtype is np.object_ else 0
        last = values[-1] if values.size else zero
        values = np.append(values, np.full(missing, last, dtype))
    return values.reshape(shape)


def rest_logits(
    server, model, tokens, version=None, version_label=None, timeout=60.0
):
    """Asks the tokens-only signature over REST, which keeps no state.

    Args:
        server: `http://host:port`.
        model: its name in the server.
        tokens: [B, T] integers.
        version: number; None = the newest.
        version_label: instead of `version`.
        timeout: seconds.

    Returns:
        logits [B, T, V] float32.

    Raises:
        ClientError: if the server cannot be reached or refuses.
    """
    path = f"/v1/models/{model}"
    if version is not None:
        path += f"/versions/{version}"
    elif version_label is not None:
        path += f"/labels/{version_label}"
    url = f"{server.rstrip('/')}{path}:predict"
    body = {
        "signature_name": "serving_default",
        "inputs": {"tokens": np.asarray(tokens).tolist()},
    }
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            outputs = json.load(response)["outputs"]
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        with contextlib.suppress(ValueError, LookupError, TypeError):
            text = json.loads(text)["error"]
        raise ClientError(f"HTTP_{error.code}", url, text) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ClientError("UNAVAILABLE", url, reason) from None
    # A signature of one output answers without its name.
    if isinstance(outputs, dict):
        outputs = outputs["logits"]
    return np.array(outputs, np.float32)
