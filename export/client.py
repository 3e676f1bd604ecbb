r"""Writes text with an exported model in TensorFlow Serving.

    python export/client.py --server=localhost:8500 --model=lrm \
        --prompt="import " --max_new_tokens=200
    python export/client.py --server=localhost:8500 --model=lrm --describe
    python export/client.py --rest=http://localhost:8501 --model=lrm \
        --tokens=5,7,11

The text goes to standard output as it is generated. --tokens instead of
--prompt is for exports without a tokenizer, token ids in and out. --describe
shows the signatures and what a request carries. --rest asks the tokens-only
signature over HTTP for the likeliest next tokens.

--state=carried sends the memories with every call: any replica of the server
answers, and a restart loses nothing. --state=resident leaves them in the server
under a session id. --state=auto is resident where the export has it.

As a library:

    client = Client("localhost:8500", "lrm")
    session = open_session(client)
    for tokens in session.stream([5, 7, 11], max_new_tokens=100):
        ...

This file, client_calls.py and client_sessions.py need tensorflow-serving-api
and nothing else of this repository: copy the three to where they are needed.
"""

import codecs
import contextlib
import os
import sys

if __name__ == "__main__":  # What is imported below would talk on stderr.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import numpy as np
from absl import flags
from tensorflow.core.framework import types_pb2

# For whoever loads this file by its path.
sys.path.append(os.path.dirname(os.path.abspath(__file__)))

from client_calls import (
    Client,
    ClientError,
    rest_logits,
    sizes_of,
    to_array,
    to_tensor,
)
from client_sessions import (
    CarriedSession,
    ResidentSession,
    lane_bytes,
    open_session,
)

__all__ = [
    "CarriedSession",
    "Client",
    "ClientError",
    "ResidentSession",
    "TextDecoder",
    "lane_bytes",
    "open_session",
    "rest_logits",
    "to_array",
    "to_tensor",
    "tokenize",
]


def tokenize(client, text):
    """Turns bytes into 1-D tokens, by the export's own tokenizer."""
    found = client.call("tokenize", {"text": [text]})
    length = to_array(found["lengths"])[0]
    return to_array(found["tokens"])[0, :length]


class TextDecoder:
    """Makes text of tokens as they arrive, the same however they are cut.

    Bytes that are no UTF-8, and tokens that stand for nothing, are U+FFFD.

    Args:
        client: a Client of an export with a tokenizer.
    """

    def __init__(self, client):
        self._client = client
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._last = []

    def decode(self, tokens) -> str:
        """Takes the next tokens; keeps back a character that is cut."""
        return self._utf8.decode(self._bytes(np.asarray(tokens).tolist()))

    def rest(self) -> str:
        """What is left of a character that was cut."""
        return self._utf8.decode(b"", final=True)

    def _bytes(self, tokens):
        if not tokens:
            return b""
        # What is between two words depends on both.
        both = [*self._last, *tokens]
        try:
            found = self._client.call(
                "detokenize",
                {
                    "tokens": [both, both],
                    "lengths": [len(self._last), len(both)],
                },
            )
        except ClientError as error:
            # A model may have more ids than its tokenizer.
            if "ids must be" not in error.details:
                raise
            if len(tokens) == 1:
                return b"\xff"
            half = len(tokens) // 2
            return self._bytes(tokens[:half]) + self._bytes(tokens[half:])
        self._last = tokens[-1:]
        before, text = to_array(found["text"])
        return text[len(before) :]


def _define_flags():
    # Not absl's common set: that belongs to whoever imports this file.
    values = flags.FlagValues()

    def string(name, default, text):
        flags.DEFINE_string(name, default, text, flag_values=values)

    def number(name, default, text, low=None, high=None):
        of_kind = (
            flags.DEFINE_float
            if isinstance(default, float)
            else flags.DEFINE_integer
        )
        of_kind(name, default, text, low, high, flag_values=values)

    def switch(name, text):
        flags.DEFINE_bool(name, False, text, flag_values=values)

    string("server", "localhost:8500", "host:port of gRPC.")
    string("model", "lrm", "The model's name in the server.")
    number("version", None, "The model's version; the newest by default.", 1)
    string("version_label", None, "The version's label, instead of --version.")
    flags.DEFINE_enum(
        "state",
        "auto",
        ["auto", "carried", "resident"],
        "Where the memories are between calls.",
        flag_values=values,
    )
    string("prompt", None, "Text to go on from.")
    string("prompt_file", None, "File with the prompt instead.")
    string("tokens", None, "Token ids instead, separated by commas.")
    number("max_new_tokens", 300, "Tokens to write.", 0)
    number("temperature", 0.8, "0 = always the likeliest token.", 0)
    number("top_k", 0, "Draw from so many tokens only; 0 = from all.", 0)
    number(
        "top_p",
        1.0,
        "Draw from the likeliest tokens that hold this probability.",
        0,
        1,
    )
    number("seed", 0, "The same seed writes the same text.")
    number("stop_token", -1, "Stop after this token id; -1 = never.", -1)
    number(
        "tokens_per_call",
        16,
        "Tokens that one call writes; the text is the same.",
        1,
    )
    number(
        "prompt_tokens_per_call",
        512,
        "Tokens of the prompt that one call reads; the text is the same.",
        1,
    )
    number("timeout", 60.0, "Seconds for a call with its repeats.", 0)
    number(
        "retries",
        8,
        "How often a call is sent again that found no server, or no thread.",
        0,
    )
    switch("tls", "Encrypt the connection.")
    string("root_certificates", None, "PEM file for --tls; gRPC's by default.")
    switch("describe", "Show the signatures and what a request carries; end.")
    switch("stats", "Show calls, bytes, round trips and tokens/s at the end.")
    string("rest", None, "http://host:port: ask once, with --tokens; end.")
    flags.DEFINE_bool(
        "help", False, "Show this.", short_name="h", flag_values=values
    )
    return values


def _describe(client):
    print(f"{client.place}, version {client.version}")
    for name, signature in sorted(client.signatures.items()):
        print(name)
        for way, infos in (
            ("in", signature.inputs),
            ("out", signature.outputs),
        ):
            for key, info in sorted(infos.items()):
                dtype = types_pb2.DataType.Name(info.dtype)[3:].lower()
                shape = str(sizes_of(info)).replace("-1", "?")
                print(f"  {way:<3} {key} {dtype} {shape}")
    with contextlib.suppress(ClientError):
        carried = sum(lane_bytes(client).values())
        print(f"carried: {carried:,} bytes a lane, to and fro at each call")
    if "session_generate" in client.signatures:
        print("resident: a session id and a position instead")


def _report(client, tokens):
    calls = {}
    for call in client.calls:
        calls.setdefault(call.signature, []).append(call)
    for name, made in calls.items():
        _, seconds, sent, received = zip(*made, strict=True)
        median, high = np.percentile(seconds, [50, 99]) * 1e3
        print(
            f"{name}: {len(made)} calls, {np.mean(sent):,.0f} bytes sent and "
            f"{np.mean(received):,.0f} received a call; round trip p50 "
            f"{median:.1f} ms, p99 {high:.1f} ms",
            file=sys.stderr,
        )
    seconds = sum(call.seconds for call in client.calls)
    if seconds:
        print(f"{tokens / seconds:,.1f} tokens/s", file=sys.stderr)


def _parse_tokens(text):
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--tokens must be integers separated by commas; got {text!r}"
        ) from None


def _ask_rest(values):
    if values.tokens is None:
        raise ValueError("--rest needs --tokens.")
    logits = rest_logits(
        values.rest,
        values.model,
        [_parse_tokens(values.tokens)],
        values.version,
        values.version_label,
        values.timeout,
    )[0, -1]
    print("token logit")
    for token in np.argsort(-logits, kind="stable")[:5]:
        print(f"{token} {logits[token]:.6g}")


def _write(client, values):
    names = ("prompt", "prompt_file", "tokens")
    given = [name for name in names if values[name].value is not None]
    if len(given) != 1:
        raise ValueError("give one of --prompt, --prompt_file and --tokens.")
    if values.tokens is not None:
        prompt, decoder = _parse_tokens(values.tokens), None
    else:
        if "tokenize" not in client.signatures:
            raise ValueError("the export has no tokenizer: give --tokens.")
        # The bytes as they were given, be they UTF-8 or not.
        text = os.fsencode(values.prompt or "")
        if values.prompt_file:
            with open(values.prompt_file, "rb") as stream:
                text = stream.read()
        prompt, decoder = tokenize(client, text), TextDecoder(client)
        if not prompt.size:
            raise ValueError("the prompt must hold at least one token.")
    session = open_session(client, values.state)
    written = 0

    def show(tokens, before=""):
        text = (
            decoder.decode(tokens)
            if decoder
            else before + ",".join(map(str, tokens))
        )
        sys.stdout.write(text)
        sys.stdout.flush()

    show(prompt)
    sampling = ("temperature", "top_k", "top_p", "seed", "stop_token")
    calls = ("max_new_tokens", "tokens_per_call", "prompt_tokens_per_call")
    try:
        for new in session.stream(
            prompt, **{name: values[name].value for name in sampling + calls}
        ):
            show(new, ",")
            written += new.size
    finally:
        session.end()
        print(decoder.rest() if decoder else "", flush=True)
    if values.stats:
        _report(client, written)


def main(argv) -> int:
    """Runs the command; a user's mistake ends in one line and status 1.

    Args:
        argv: program and flags.
    """
    values = _define_flags()
    try:
        rest = values(argv)[1:]
        if values.help:
            print(f"{__doc__}\n{values.get_help()}")
            return 0
        if rest:
            raise ValueError(
                f"takes flags only (--name=value); got {' '.join(rest)}"
            )
        if values.rest is not None:
            _ask_rest(values)
            return 0
        names = ("version", "version_label", "timeout", "retries", "tls")
        with Client(
            values.server,
            values.model,
            root_certificates=values.root_certificates,
            **{name: values[name].value for name in names},
        ) as client:
            if values.describe:
                _describe(client)
            else:
                _write(client, values)
    except KeyboardInterrupt:
        print("client.py: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `… | head` has read what it wanted.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except flags.Error as error:
        return _fail(f"{error}; --help lists the flags")
    except (ClientError, ValueError, OSError) as error:
        return _fail(error)
    return 0


def _fail(error):
    message = " ".join(str(error).split())
    print(f"client.py: error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
