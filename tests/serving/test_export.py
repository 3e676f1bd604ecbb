"""Tests of the folder that an export writes."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from official_lrm import serving
from official_lrm.data import ByteTokenizer, load_tokenizer
from official_lrm.serving import export


@pytest.fixture
def fake_save(monkeypatch):
    """Replaces TensorFlow's saving, which takes seconds."""

    def save(module, path, signatures, options):
        assert not options.experimental_custom_gradients
        assert "predict" in signatures
        with open(os.path.join(path, "saved_model.pb"), "wb") as stream:
            stream.write(b"a model")

    monkeypatch.setattr(tf.saved_model, "save", save)
    monkeypatch.setattr(
        serving.ServingModule, "signatures", lambda self: {"predict": None}
    )
    monkeypatch.setattr(export, "write_warmup", lambda *arguments: None)


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.mark.usefixtures("fake_save")
class TestVersions:
    def test_they_count_up(self, model, tmp_path):
        folder = str(tmp_path / "new" / "exports")
        for version in (1, 2, 3):
            path = serving.export_saved_model(model, folder)
            assert path == os.path.join(folder, str(version))
        assert serving.versions(folder) == [1, 2, 3]
        assert serving.next_version(folder) == 4
        assert sorted(os.listdir(folder)) == ["1", "2", "3"]

    def test_the_next_is_after_the_highest(self, model, tmp_path):
        for name in ("2", "11", "99.bak", ".101.incomplete", "x", "²"):
            (tmp_path / name).mkdir()
        assert serving.versions(tmp_path) == [2, 11]
        path = serving.export_saved_model(model, str(tmp_path))
        assert os.path.basename(path) == "12"

    def test_a_version_may_be_chosen(self, model, tmp_path):
        folder = str(tmp_path)
        path = serving.export_saved_model(model, folder, version=7)
        assert os.listdir(folder) == ["7"]
        assert sorted(os.listdir(path)) == ["assets.extra", "saved_model.pb"]

    def test_an_existing_one_is_never_replaced(self, model, tmp_path):
        (tmp_path / "3").mkdir()
        message = f"^version 3 exists in {tmp_path}; the next free one is 4"
        with pytest.raises(ValueError, match=message):
            serving.export_saved_model(model, str(tmp_path), version=3)
        assert os.listdir(tmp_path) == ["3"]
        assert not os.listdir(tmp_path / "3")

    @pytest.mark.parametrize("version", [0, -1, 2**63, "3", 2.0, True])
    def test_others_are_refused(self, model, tmp_path, version):
        message = f"^version must be a positive 64-bit integer; got {version!r}"
        with pytest.raises(ValueError, match=message):
            serving.export_saved_model(model, str(tmp_path), version=version)
        assert not os.listdir(tmp_path)

    def test_what_a_killed_export_left_is_cleared(self, model, tmp_path):
        left = tmp_path / ".1.incomplete"
        left.mkdir()
        (left / "half").write_bytes(b"half")
        path = serving.export_saved_model(model, str(tmp_path))
        assert os.listdir(tmp_path) == ["1"]
        assert sorted(os.listdir(path)) == ["assets.extra", "saved_model.pb"]

    def test_of_a_missing_folder(self, tmp_path):
        assert serving.versions(tmp_path / "nowhere") == []
        assert serving.next_version(tmp_path / "nowhere") == 1


@pytest.mark.usefixtures("fake_save")
class TestFailures:
    @pytest.mark.parametrize(
        "error", [OSError("disk is full"), KeyboardInterrupt()], ids=str
    )
    def test_a_failing_save_leaves_nothing(
        self, model, tmp_path, monkeypatch, error
    ):
        def fail(module, path, signatures, options):
            # A folder that a server sees must never be half a model.
            assert not os.path.basename(path).isdigit()
            with open(os.path.join(path, "saved_model.pb"), "wb") as stream:
                stream.write(b"half")
            raise error

        monkeypatch.setattr(tf.saved_model, "save", fail)
        with pytest.raises(type(error)):
            serving.export_saved_model(model, str(tmp_path))
        assert not os.listdir(tmp_path)

    def test_a_failing_tokenizer_leaves_nothing(self, model, tmp_path):
        class Unserializable(ByteTokenizer):
            def get_config(self):
                return {"type": object()}

        with pytest.raises(TypeError, match="JSON"):
            serving.export_saved_model(
                model, str(tmp_path), tokenizer=Unserializable(23)
            )
        assert not os.listdir(tmp_path)

    def test_a_tokenizer_of_more_ids_than_the_model(self, model, tmp_path):
        message = "at most the 23 ids of the model; got one of 24"
        with pytest.raises(ValueError, match=message):
            serving.export_saved_model(
                model, str(tmp_path), tokenizer=ByteTokenizer(24)
            )
        assert not os.listdir(tmp_path)


class TestFolder:
    def test_files(self, of_bytes):
        path = of_bytes.path
        assert os.path.basename(path) == "1"
        assert os.listdir(os.path.dirname(path)) == ["1"]
        assert {"saved_model.pb", "variables", "assets.extra"} <= set(
            os.listdir(path)
        )

    def test_the_tokenizer_is_beside_the_model(self, of_bytes):
        file = os.path.join(of_bytes.path, "assets.extra", "tokenizer.json")
        with open(file, encoding="utf-8") as stream:
            assert json.load(stream) == {"type": "bytes", "vocab_size": 256}
        assert load_tokenizer(file).vocab_size == 256

    def test_there_is_no_tokenizer_unless_given(self, short):
        extra = os.listdir(os.path.join(short.path, "assets.extra"))
        assert extra == ["tf_serving_warmup_requests"]

    def test_every_weight_is_in_it_once(self, short):
        # Keras 3 layers in lists are invisible to tf.Module's tracking.
        names = tf.train.list_variables(
            os.path.join(short.path, "variables", "variables")
        )
        sizes = [np.prod(shape, dtype=int) for name, shape in names]
        saved = sum(
            size
            for (name, _), size in zip(names, sizes, strict=True)
            if name != "_CHECKPOINTABLE_OBJECT_GRAPH"
        )
        assert saved == short.model.count_params()


class TestDescription:
    def test_it_shows_what_a_request_carries(self, retained):
        text = serving.describe_state(retained.model)
        lines = text.splitlines()
        assert "layer 2" in lines[0]
        assert "2304 long" in lines[0]
        assert "memory_00  [B, 128, 10] float32" in lines
        assert "memory_02  [B, 2304, 10] float32" in lines
        assert "position   [B] int32" in lines
        assert "memory_01" not in text
        # (128 + 2304) * 10 * 4 bytes, and 3 * 2304 * 10 * 4.
        assert lines[-1] == (
            "state: 0.09 MiB a lane and request; 0.26 MiB with full memory"
        )

    def test_it_knows_the_dtype(self, make_model):
        model = make_model((1024,), hidden_size=512, dtype="mixed_bfloat16")
        lines = serving.describe_state(model).splitlines()
        assert "memory_00  [B, 1024, 512] bfloat16" in lines
        assert lines[-1].startswith("state: 1.00 MiB a lane")

    def test_keys_and_values_in_int8_have_scales(self, make_model):
        model = make_model((3,), memory_format="key_value", memory_dtype="int8")
        lines = serving.describe_state(model, num_sessions=5).splitlines()
        assert lines[1:-2] == [
            "key_00          [B, 3, 2, 7] int8",
            "key_00_scale    [B, 3] float32",
            "value_00        [B, 3, 2, 7] int8",
            "value_00_scale  [B, 3] float32",
            "position        [B] int32",
        ]
        assert lines[-1].startswith("resident: 5 sessions take ")

    def test_all_sessions_together(self, make_model):
        # 1,048,576 numbers a lane, and the position.
        model = make_model((1024, 1024), hidden_size=512)
        lines = serving.describe_state(model, num_sessions=3).splitlines()
        assert lines[-1] == (
            "resident: 3 sessions take 12.00 MiB of the server's memory"
        )


class TestOptions:
    def test_the_model_of_the_options_is_exported(self, make_model, tmp_path):
        path = serving.export_saved_model(
            make_model((3, 5)),
            str(tmp_path),
            spans=(0, 2),
            memory_format="key_value",
            memory_dtype="bfloat16",
        )
        predict = tf.saved_model.load(path).signatures["predict"]
        outputs = predict.structured_outputs
        assert outputs.keys() == {"logits", "key_01", "value_01", "position"}
        assert outputs["key_01"].dtype == tf.bfloat16

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"state": "held"},
                "^state must be .*carried, resident; got 'held'",
            ),
            (
                {"state": "resident", "num_sessions": 0},
                "^sessions must be 1 or more .*; got 0",
            ),
            (
                {"memory_format": "keys"},
                "^memory_format must be .*hidden, key_value; got 'keys'",
            ),
            (
                {"memory_dtype": "int4"},
                "^memory_dtype must be one of .*int8; got 'int4'",
            ),
        ],
    )
    def test_others_are_refused(self, make_model, tmp_path, options, message):
        with pytest.raises(ValueError, match=message):
            serving.export_saved_model(
                make_model((3,)), str(tmp_path), **options
            )
        assert not os.listdir(tmp_path)
