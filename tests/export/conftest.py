"""The client, a server in the process, and small exports for both."""

import contextlib
import importlib.util
import pathlib
import socket
import sys
import time
import types

import numpy as np
import pytest
import tensorflow as tf

import official_lrm as lrm
from official_lrm import serving
from official_lrm.data import ByteTokenizer, WordTokenizer

HERE = pathlib.Path(__file__).resolve().parent
EXPORT = HERE.parents[1] / "export"


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def client_path():
    return EXPORT / "client.py"


@pytest.fixture(scope="session")
def client(client_path):
    """The module."""
    return load(client_path)


@pytest.fixture(scope="session")
def client_calls(client):
    return sys.modules[client.Client.__module__]


@pytest.fixture(scope="session")
def service():
    return load(HERE.parents[1] / "tools" / "prediction_service.py")


@pytest.fixture(scope="session")
def rest_service():
    return load(HERE / "rest_service.py")


def make_model(vocab_size, spans=(5, 0, 11)):
    model = lrm.TransformerXLLanguageModel(
        vocab_size=vocab_size,
        spans=spans,
        hidden_size=10,
        num_heads=2,
        head_size=7,
        inner_size=17,
    )
    # Initial weights are so small that every token would be as likely.
    rng = np.random.default_rng(2)
    for weight in model.weights:
        value = rng.normal(size=weight.shape) * 0.4
        weight.assign(value + (weight.name == "gamma"))
    return model


@pytest.fixture(scope="session", name="make_model")
def make_model_fixture():
    return make_model


def make_export(folder, model, tokenizer):
    path = serving.export_saved_model(model, folder, tokenizer=tokenizer)
    return types.SimpleNamespace(
        folder=folder,
        path=path,
        model=model,
        tokenizer=tokenizer,
        generator=serving.TextGenerator.from_saved_model(path),
    )


@pytest.fixture(scope="session")
def of_bytes(tmp_path_factory):
    """An export with two memories, of a model of bytes."""
    folder = str(tmp_path_factory.mktemp("of_bytes"))
    return make_export(folder, make_model(256), ByteTokenizer())


@pytest.fixture(scope="session")
def of_words(tmp_path_factory):
    """An export of more ids than its tokenizer has."""
    tokenizer = WordTokenizer.learn(["the cat sat\non the mät".encode()])
    model = make_model(tokenizer.vocab_size + 3, spans=(5,))
    return make_export(str(tmp_path_factory.mktemp("words")), model, tokenizer)


@pytest.fixture(scope="session")
def session_module():
    return load(HERE / "session_module.py")


@pytest.fixture(scope="session")
def make_toy(session_module):
    return session_module.Toy


@pytest.fixture(scope="session")
def of_sessions(session_module, tmp_path_factory):
    """Folder of an export that keeps sessions, and nothing else."""
    folder = tmp_path_factory.mktemp("sessions")
    module = session_module.SessionModule()
    tf.saved_model.save(
        module, str(folder / "1"), signatures=module.signatures()
    )
    return str(folder)


@pytest.fixture(scope="session")
def server(service, of_bytes):
    """Serves `of_bytes`; not to be stopped or changed."""
    with service.PredictionServer({"lrm": of_bytes.folder}) as server:
        yield server


@pytest.fixture(params=[False, True], ids=["content", "fields"])
def own_server(request, service, of_bytes):
    """Serves `of_bytes`, in either encoding."""
    with service.PredictionServer(
        {"lrm": of_bytes.folder}, as_fields=request.param
    ) as server:
        yield server


@pytest.fixture
def session_server(service, of_sessions):
    """Serves `of_sessions`."""
    with service.PredictionServer({"lrm": of_sessions}) as server:
        yield server


@pytest.fixture
def connect(client):
    """Makes Clients, closed at the end."""
    made = []

    def make(server, **kwargs):
        made.append(client.Client(server.address, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def recorded():
    """Lists (request, response) of the calls that a server answers."""

    @contextlib.contextmanager
    def record(server):
        calls = []

        def around(request, answer):
            response = answer()
            calls.append((request, response))
            return response

        server.around = around
        yield calls
        server.around = None

    return record


@pytest.fixture
def pauses(client_calls, monkeypatch):
    """Lists the pauses between repeats; `pauses.then` is called in each."""

    class Pauses(list):
        def then(self):
            pass

    found = Pauses()

    def sleep(seconds):
        found.append(seconds)
        found.then()
        time.sleep(seconds / 10)

    clock = types.SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr(client_calls, "time", clock)
    return found


@pytest.fixture
def unused_port():
    with socket.create_server(("localhost", 0)) as found:
        return found.getsockname()[1]
