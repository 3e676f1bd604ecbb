"""Texts that go on from call to call, with their memories.

Carried state: the memories travel with every request, and any replica answers
it. Resident state: the server keeps them under a session id, until it stops.

Every call may be sent again when the server was UNAVAILABLE. A carried call is
a function of its inputs; a resident step is taken only at the session's own
position, so never twice. If one was taken and its answer lost, the repeat is
refused: the session's state is then unknown, and it must be restarted.
"""

import contextlib
import math
import os

import numpy as np
from client_calls import (
    MAX_MESSAGE_BYTES,
    ClientError,
    sizes_of,
    to_array,
    too_large,
)
from tensorflow.core.framework import tensor_pb2, types_pb2

# Memories are carried and never read: the size of an element is enough.
_ELEMENT_BYTES = {
    types_pb2.DT_FLOAT: 4,
    types_pb2.DT_HALF: 2,
    types_pb2.DT_BFLOAT16: 2,
    types_pb2.DT_INT8: 1,
    types_pb2.DT_FLOAT8_E4M3FN: 1,
    types_pb2.DT_FLOAT8_E5M2: 1,
    types_pb2.DT_INT32: 4,
}


class _Session:
    """Texts that go on from call to call; not for two threads at once.

    A call that raises counts as not made.
    """

    _step, _generate = "predict", "generate"

    def predict(self, tokens):
        """Reads tokens [B, T]; returns logits [B, T, V] float32."""
        return self.call(self._step, {"tokens": tokens}, ["logits"])["logits"]

    def generate(
        self,
        tokens,
        max_new_tokens,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        seed=0,
        stop_token=-1,
    ):
        """Reads tokens and writes on.

        Args:
            tokens: [B, T] int32, T >= 1. The last token that a call writes is
                not in the memories yet: the next call begins with it.
            max_new_tokens: scalar or [B], as all that follow.
            temperature: 0 = the likeliest token.
            top_k: keep so many; 0 = all.
            top_p: keep so much probability; 1 = all.
            seed: of the noise, int64.
            stop_token: stop after this token; -1 = never.

        Returns:
            generated [B, W] int32, padded with -1, and generated_lengths [B]
            int32.
        """
        sampling = {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "seed": seed,
            "stop_token": stop_token,
        }
        inputs = {
            name: np.broadcast_to(value, [self.lanes])
            for name, value in sampling.items()
        }
        # With the memories all that there are: a server makes each set of
        # outputs ready when it is first asked for, which takes seconds.
        outputs = ("generated", "generated_lengths")
        found = self.call(self._generate, {"tokens": tokens, **inputs}, outputs)
        return tuple(found[name] for name in outputs)

    def stream(
        self,
        prompt,
        max_new_tokens,
        stop_token=-1,
        tokens_per_call=16,
        prompt_tokens_per_call=512,
        **sampling,
    ):
        """Writes one lane, call after call; how it is cut changes nothing.

        Args:
            prompt: 1-D integer tokens, at least one.
            max_new_tokens: how many to write at most.
            stop_token: stop after this token; -1 = never.
            tokens_per_call: tokens that one call generates.
            prompt_tokens_per_call: tokens of the prompt that one call reads.
            **sampling: other arguments of `generate`.

        Yields:
            1-D int32 arrays of new tokens.

        Raises:
            ValueError: for more lanes than one or calls of no tokens.
            ClientError: as calls do.
        """
        if min(self.lanes, tokens_per_call, prompt_tokens_per_call) < 1:
            raise ValueError("stream needs calls of at least one token.")
        if self.lanes != 1:
            raise ValueError(f"stream needs 1 lane; got {self.lanes}.")
        tokens = np.asarray(prompt)[None]
        while tokens.shape[1] > prompt_tokens_per_call:
            self.generate(tokens[:, :prompt_tokens_per_call], 0)
            tokens = tokens[:, prompt_tokens_per_call:]
        while max_new_tokens > 0:
            count = min(tokens_per_call, max_new_tokens)
            generated, lengths = self.generate(
                tokens, count, stop_token=stop_token, **sampling
            )
            new = generated[0, : lengths[0]]
            yield new
            if new.size < count or new[-1] == stop_token:
                return
            tokens = new[None, -1:]
            max_new_tokens -= count


class CarriedSession(_Session):
    """Memories travel with every call, and go back as they came.

    Args:
        client: a Client.
        lanes: number of texts, B.

    Attributes:
        memories: dict of TensorProtos; a copy of it is a way back.

    Raises:
        ClientError: if the model carries none, or they are above the limit of
            a message.
    """

    def __init__(self, client, lanes=1):
        self.lanes = lanes
        self._client = client
        sizes = {
            name: lanes * size for name, size in lane_bytes(client).items()
        }
        # The first answer has them whole.
        if sum(sizes.values()) > MAX_MESSAGE_BYTES:
            raise too_large(client.place, sum(sizes.values()), sizes)
        self.memories = {}
        for name, info in _memories(client).items():
            # A shape without a value is zeros.
            proto = tensor_pb2.TensorProto(dtype=info.dtype)
            for size in [lanes, *sizes_of(info)[1:]]:
                proto.tensor_shape.dim.add(size=size)
            self.memories[name] = proto

    def call(self, signature, inputs, outputs) -> dict:
        """Calls any signature that takes the memories and gives them back.

        Args:
            signature: its name.
            inputs: dict of arrays, beside the memories.
            outputs: names, beside the memories; others are not sent.

        Returns:
            Dict of arrays.
        """
        found = self._client.call(
            signature, {**inputs, **self.memories}, [*outputs, *self.memories]
        )
        arrays = {name: to_array(found.pop(name)) for name in outputs}
        self.memories = found
        return arrays

    def end(self):
        """Nothing is left behind."""


class ResidentSession(_Session):
    """Memories stay in the server, under ids that are drawn at each start.

    Args:
        client: a Client.
        lanes: number of texts, B.

    Raises:
        ClientError: if the model keeps none.
    """

    _step, _generate = "session_step", "session_generate"

    def __init__(self, client, lanes=1):
        if not {self._step, self._generate} & client.signatures.keys():
            raise ClientError(
                "INVALID_ARGUMENT", client.place, "no signature keeps sessions"
            )
        self.lanes = lanes
        self._client = client
        self._start()

    def _start(self):
        # New ids: a call that was given up may be carried out later, and must
        # not restart what has gone on since.
        self._ids = np.frombuffer(os.urandom(8 * self.lanes), np.int64)
        self._position = np.zeros(self.lanes, np.int32)
        self._lost = None

    def call(self, signature, inputs, outputs) -> dict:
        """Calls any signature that takes and gives back id and position.

        Args and return value are those of `CarriedSession.call`.

        Raises:
            ClientError: also if the server's session is gone or not at this
                object's position; then, until `restart`, at every call.
        """
        if self._lost:
            raise ClientError(*self._lost)
        own = {"session_id": self._ids, "position": self._position}
        try:
            found = self._client.call(
                signature, {**inputs, **own}, [*outputs, *own]
            )
        except ClientError as error:
            if not self._position.any():
                self._start()
            elif (
                error.code == "FAILED_PRECONDITION"
                or "that of the session" in error.details
            ):
                self._lost = (
                    error.code,
                    f"{self._client.place}, {signature}",
                    "the session's state is unknown: it was evicted, its "
                    "server restarted, or a step's answer was lost; restart "
                    f"it ({error.details})",
                )
                raise ClientError(*self._lost) from None
            raise
        self._position = to_array(found["position"])
        return {name: to_array(found[name]) for name in outputs}

    def restart(self):
        """Begins anew, with empty memories."""
        self.end()
        self._start()

    def end(self):
        """Frees the memories; a server out of reach evicts them itself."""
        if self._position.any():
            ids = {"session_id": self._ids}
            with contextlib.suppress(ClientError):
                self._client.call("session_end", ids, retries=0)


def open_session(client, state="auto", lanes=1):
    """Makes a CarriedSession or a ResidentSession.

    Args:
        client: a Client.
        state: "carried", "resident", or "auto": resident where the model has
            its signatures.
        lanes: number of texts.

    Raises:
        ClientError: if the model lacks what `state` needs.
    """
    if state == "auto":
        resident = "session_generate" in client.signatures
        state = "resident" if resident else "carried"
    kind = {"carried": CarriedSession, "resident": ResidentSession}[state]
    return kind(client, lanes)


def lane_bytes(client) -> dict:
    """Bytes of each memory of a lane, by name; a request carries them all.

    Raises:
        ClientError: if the model carries no memories.
    """
    found = {}
    for name, info in _memories(client).items():
        sizes = sizes_of(info)[1:]
        if info.dtype not in _ELEMENT_BYTES or -1 in sizes:
            dtype = types_pb2.DataType.Name(info.dtype)
            raise ClientError(
                "INVALID_ARGUMENT",
                client.place,
                f"{name} is {dtype} of {sizes} a lane, which no memory is",
            )
        found[name] = math.prod(sizes) * _ELEMENT_BYTES[info.dtype]
    return found


def _memories(client):
    for name in ("generate", "predict"):
        if name in client.signatures:
            signature = client.signatures[name]
            return {
                key: signature.inputs[key]
                for key in sorted(signature.inputs)
                if key in signature.outputs
            }
    raise ClientError(
        "INVALID_ARGUMENT", client.place, "no signature carries memories"
    )
