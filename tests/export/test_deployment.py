"""Tests of the files in export/serving, and of what their comments say."""

import pathlib
import re
import subprocess

import numpy as np
import pytest
import tensorflow as tf
import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

import official_lrm as lrm

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "export" / "serving"
DEFAULTS = {
    "LRM_EXPORT": "../../exports/first",
    "LRM_CPUS": "2",
    "LRM_MEMORY": "8g",
}
# Of those that TensorFlow Serving's main.cc has.
FLAGS = {
    "port",
    "rest_api_port",
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "monitoring_config_file",
    "enable_serialization_as_tensor_content",
    "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
    "grpc_max_threads",
    "enable_batching",
    "batching_parameters_file",
}

# Messages that the Python package lacks: name, number and type of each field,
# as in session_bundle_config.proto and monitoring_config.proto.
INT64, BOOL = ".google.protobuf.Int64Value", ".google.protobuf.BoolValue"
MESSAGES = {
    "BatchingParameters": [
        ("max_batch_size", 1, INT64),
        ("batch_timeout_micros", 2, INT64),
        ("max_enqueued_batches", 3, INT64),
        ("num_batch_threads", 4, INT64),
        ("thread_pool_name", 5, ".google.protobuf.StringValue"),
        ("allowed_batch_sizes", 6, "repeated int64"),
        ("pad_variable_length_inputs", 7, "bool"),
        ("enable_large_batch_splitting", 8, BOOL),
        ("max_execution_batch_size", 9, INT64),
    ],
    "PrometheusConfig": [("enable", 1, "bool"), ("path", 2, "string")],
    "MonitoringConfig": [
        ("prometheus_config", 1, ".tensorflow.serving.PrometheusConfig")
    ],
}


def message_classes():
    """Classes of MESSAGES, in a pool of their own."""
    file = descriptor_pb2.FileDescriptorProto(
        name="configs.proto", package="tensorflow.serving", syntax="proto3"
    )
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            added = message.field.add(name=field, number=number)
            plural, _, kind = kind.rpartition(" ")
            added.label = (
                added.LABEL_REPEATED if plural else added.LABEL_OPTIONAL
            )
            if kind.startswith("."):
                added.type, added.type_name = added.TYPE_MESSAGE, kind
            else:
                added.type = added.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"tensorflow.serving.{name}")
        )
        for name in MESSAGES
    }


def read(name):
    return (FOLDER / name).read_text(encoding="utf-8")


def parse(name, kind):
    """Reads a text proto as the server does: an unknown field is an error."""
    return text_format.Parse(read(name), message_classes()[kind]())


@pytest.fixture(scope="module")
def batching():
    return parse("batching.config", "BatchingParameters")


@pytest.fixture(scope="module")
def compose():
    """The service, with the defaults of its variables, and those."""
    found = {}

    def default(match):
        found[match[1]] = match[2]
        return match[2]

    text = re.sub(r"\$\{(\w+):-([^}]*)\}", default, read("docker-compose.yml"))
    assert "$" not in text
    content = yaml.safe_load(text)
    assert list(content) == ["services"]
    (service,) = content["services"].values()
    return service, found


class TestModels:
    @pytest.mark.parametrize("by_hand", [False, True])
    def test_one_model_of_two_versions(self, compose, by_hand):
        text = read("models.config")
        option = r"^( *)# ((model_version_policy|version_labels) .*)$"
        assert len(re.findall(option, text, re.MULTILINE)) == 3
        if by_hand:  # The other choice instead, which is commented out.
            text = re.sub(r"(?m)^ *model_version_policy .*$", "", text)
            text = re.sub(f"(?m){option}", r"\1\2", text)
        config = model_server_config_pb2.ModelServerConfig()
        text_format.Parse(text, config)
        (model,) = config.model_config_list.config
        # The client's default.
        assert model.name == "lrm"
        assert model.model_platform == "tensorflow"
        (target,) = (
            volume["target"]
            for volume in compose[0]["volumes"]
            if volume["target"] != "/config"
        )
        assert model.base_path == target
        policy = model.model_version_policy
        if by_hand:
            assert set(model.version_labels.values()) == set(
                policy.specific.versions
            )
        else:
            assert policy.latest.num_versions == 2
            assert not model.version_labels

    def test_the_client_keeps_to_the_version_it_met(
        self, client, connect, service, of_sessions, tmp_path
    ):
        for version in ("1", "2"):
            (tmp_path / version).symlink_to(pathlib.Path(of_sessions, "1"))
        with service.PredictionServer(
            {"lrm": str(tmp_path)}, {"stable": 1}
        ) as server:
            old = connect(server, version_label="stable")
            assert (old.version, connect(server).version) == (1, 2)
            session = client.ResidentSession(old)
            session.predict([[2]])
            server._labels["stable"] = 2
            session.predict([[3]])
            # The version after next.
            server.stop()
            (tmp_path / "1").unlink()
            server.start()
            with pytest.raises(client.ClientError, match="^NOT_FOUND") as error:
                session.predict([[5]])
            assert "Specific(lrm, 1)" in str(error.value)


class TestMonitoring:
    def test_prometheus(self):
        config = parse("monitoring.config", "MonitoringConfig")
        assert config.prometheus_config.enable
        assert config.prometheus_config.path == "/monitoring/prometheus/metrics"


class TestBatching:
    def test_an_unknown_field_is_an_error(self):
        message = message_classes()["BatchingParameters"]()
        with pytest.raises(text_format.ParseError, match="no field named"):
            text_format.Parse("max_batch_sizes { value: 8 }", message)

    def test_values(self, batching):
        assert not batching.pad_variable_length_inputs
        assert not batching.allowed_batch_sizes
        for name in (
            "batch_timeout_micros",
            "num_batch_threads",
            "max_enqueued_batches",
        ):
            assert batching.HasField(name)
            assert getattr(batching, name).value > 0

    def test_a_full_batch_of_the_published_model_fits_a_message(self, batching):
        spans = lrm.MemorySpans.arrange(24, 4, "interleaved", 6000, 128)
        lane = spans.state_bytes(hidden_size=1024)
        assert batching.max_batch_size.value * lane < 2**31
        most = (2**31 - 1) // batching.max_batch_size.value // 2**20
        assert f"for up to {most} MiB a lane" in read("batching.config")


class TestMergedLanes:
    """What batching does to requests, done by hand: concatenation."""

    @pytest.fixture(scope="class")
    def parts(self, client, server):
        """Requests of three clients, whose memories differ."""
        inputs = []
        with client.Client(server.address) as one:
            for seed in range(3):
                tokens = np.random.default_rng(seed).integers(0, 256, [1, 9])
                session = client.CarriedSession(one)
                session.predict(tokens[:, : 3 * seed])
                inputs.append(
                    {
                        "tokens": tokens[:, -3:].astype("int32"),
                        **{
                            name: tf.make_ndarray(proto)
                            for name, proto in session.memories.items()
                        },
                    }
                )
        return inputs

    @pytest.fixture
    def call(self, connect, server):
        """Calls a signature; arrays in and out."""
        one = connect(server)

        def call(name, inputs):
            protos = {
                key: tf.make_tensor_proto(value)
                for key, value in inputs.items()
            }
            outputs = one.call(name, protos)
            return {
                key: tf.make_ndarray(proto) for key, proto in outputs.items()
            }

        return call

    @staticmethod
    def merged(requests):
        return {
            name: np.concatenate([request[name] for request in requests])
            for name in requests[0]
        }

    def test_each_has_what_it_has_alone(self, call, parts):
        # The last one twice, as allowed_batch_sizes would have it.
        together = call("predict", self.merged([*parts, parts[-1]]))
        for lane, part in enumerate([*parts, parts[-1]]):
            for name, expected in call("predict", part).items():
                np.testing.assert_allclose(
                    together[name][lane : lane + 1],
                    expected,
                    rtol=0,
                    atol=1e-5,
                    err_msg=name,
                )

    def test_one_that_is_refused_fails_all(self, call, client, parts):
        wrong = {**parts[1], "tokens": np.array([[3, 256, 5]], "int32")}
        call("predict", self.merged([parts[0], parts[2]]))
        with pytest.raises(client.ClientError, match="tokens must be from 0 "):
            call("predict", self.merged([parts[0], wrong, parts[2]]))

    def test_all_wait_for_the_longest(self, call, parts):
        def sampling(count):
            return {
                "max_new_tokens": np.array([count], "int32"),
                "temperature": np.array([0], "float32"),
                "top_k": np.array([0], "int32"),
                "top_p": np.array([1], "float32"),
                "seed": np.array([0], "int64"),
                "stop_token": np.array([-1], "int32"),
            }

        requests = [
            {**part, **sampling(count)}
            for part, count in zip(parts, (2, 7, 3), strict=True)
        ]
        together = call("generate", self.merged(requests))
        assert together["generated"].shape == (3, 7)
        assert together["generated_lengths"].tolist() == [2, 7, 3]
        for lane, request in enumerate(requests):
            alone = call("generate", request)["generated"][0]
            row = together["generated"][lane]
            assert row[: alone.size].tolist() == alone.tolist()
            assert (row[alone.size :] == -1).all()


class TestCompose:
    def test_variables(self, compose):
        assert compose[1] == DEFAULTS

    @pytest.mark.parametrize("with_batching", [False, True])
    def test_flags(self, compose, with_batching):
        service, _ = compose
        flags = dict(
            flag.removeprefix("--").split("=", 1) for flag in service["command"]
        )
        option = r"(?m)^ *# - --(\w+)=(\S+)$"
        optional = dict(re.findall(option, read("docker-compose.yml")))
        assert optional.keys() == {
            "enable_batching",
            "batching_parameters_file",
        }
        assert not optional.keys() & flags.keys()
        if with_batching:
            flags |= optional
        assert flags.keys() <= FLAGS
        assert flags["enable_serialization_as_tensor_content"] == "true"
        files = [value for name, value in flags.items() if "_file" in name]
        files.remove(flags["model_config_file_poll_wait_seconds"])
        assert len(files) == 2 + with_batching
        for file in files:
            assert file.startswith("/config/")
            assert (FOLDER / file.removeprefix("/config/")).is_file()

    def test_volumes(self, compose):
        service, _ = compose
        sources = {}
        for volume in service["volumes"]:
            assert volume["type"] == "bind"
            assert volume["read_only"]
            sources[volume["target"]] = FOLDER / volume["source"]
        assert sources["/config"].samefile(FOLDER)
        # What the README exports into; there is none in a fresh checkout.
        exports = sources["/models/lrm"].resolve()
        assert exports == ROOT / "exports" / "first"
        assert "--export_dir=exports/first" in read("docker-compose.yml")
        assert "--export_dir=exports/first" in (
            (ROOT / "README.md").read_text(encoding="utf-8")
        )

    def test_ports(self, compose):
        service, _ = compose
        assert service["ports"] == [
            f"127.0.0.1:{port}:{port}" for port in (8500, 8501)
        ]
        assert "--port=8500" in service["command"]
        assert "--rest_api_port=8501" in service["command"]

    def test_limits(self, compose):
        service, _ = compose
        limits = service["deploy"]["resources"]["limits"]
        assert limits == {"cpus": "2", "memory": "8g"}
        for kind in ("intra", "inter"):
            assert f"--tensorflow_{kind}_op_parallelism=2" in service["command"]

    def test_the_image_is_of_the_tested_version(self, compose):
        version = tf.__version__.rsplit(".", 1)[0]
        image = compose[0]["image"]
        assert re.fullmatch(rf"tensorflow/serving:{version}\.\d+", image)


class TestHealthCheck:
    @pytest.fixture
    def check(self, compose):
        """Runs the health check against a port; True = healthy."""

        def run(port, model="lrm"):
            how, *command = compose[0]["healthcheck"]["test"]
            assert how == "CMD"
            script = command[-1]
            assert script.count("/8501") == script.count("/lrm ") == 1
            script = script.replace("/8501", f"/{port}")
            script = script.replace("/lrm ", f"/{model} ")
            result = subprocess.run(
                [*command[:-1], script], capture_output=True, timeout=60
            )
            return result.returncode == 0

        return run

    def test_it_asks_for_the_model(
        self, check, server, service, rest_service, unused_port
    ):
        with rest_service.RestServer(server, service.ServiceError) as rest:
            port = rest.url.rsplit(":", 1)[1]
            assert check(port)
            assert not check(port, "nmt")
        assert not check(unused_port)
