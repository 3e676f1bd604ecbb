"""Tests of presets: folders of readable files that hold a model."""

import json
import os

import keras
import numpy as np
import pytest

import official_lrm as lrm
from official_lrm.data import ByteTokenizer, load_tokenizer

Model = lrm.TransformerXLLanguageModel


@pytest.fixture
def preset(make_model, tmp_path):
    """A model, and the folder of its preset."""
    model = make_model(
        untie_biases=True, clamp_length=13, dropout=0.2, same_length=True
    )
    path = tmp_path / "preset"
    model.save_to_preset(path, ByteTokenizer(19))
    return model, path


def edit_config(path, change):
    """Lets `change` modify config.json of a preset in place."""
    file = path / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    change(config)
    file.write_text(json.dumps(config), encoding="utf-8")


def refusal(error_type, path, **kwargs):
    """The one line that loading a preset is refused with."""
    with pytest.raises(error_type) as caught:
        Model.from_preset(path, **kwargs)
    assert type(caught.value) is error_type
    message = str(caught.value)
    assert "\n" not in message
    return message


class TestRoundTrip:
    def test_logits_are_the_same_bit_for_bit(
        self, preset, make_tokens, run_segments
    ):
        model, path = preset
        loaded = Model.from_preset(path)
        tokens = make_tokens(2, 13)
        logits, memories = run_segments(loaded, tokens, [7, 5, 1])
        expected, final = run_segments(model, tokens, [7, 5, 1])
        np.testing.assert_array_equal(logits, expected)
        assert memories.keys() == final.keys()
        for name in final:
            np.testing.assert_array_equal(memories[name], final[name])

    def test_the_config_is_the_same(self, preset):
        model, path = preset
        config, expected = (
            {**value.get_config(), "name": None}
            for value in (Model.from_preset(path), model)
        )
        assert config == expected

    def test_long_layers_stay_long(self, make_model, tmp_path):
        spans = lrm.MemorySpans([3, 3, 5], is_long=[False, True, False])
        make_model(spans).save_to_preset(tmp_path)
        assert Model.from_preset(tmp_path).spans == spans

    def test_saving_again_replaces_the_weights(self, preset, make_model):
        _, path = preset
        other = make_model(untie_biases=True, weights_seed=23)
        other.save_to_preset(path)
        loaded = Model.from_preset(path)
        for value, expected in zip(
            loaded.get_weights(), other.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(value, expected)
        assert not loaded.same_length

    def test_a_path_may_be_a_string(self, make_model, tmp_path):
        path = os.path.join(tmp_path, "new", "folder")
        make_model().save_to_preset(path)
        assert Model.from_preset(path).count_params() > 0


class TestFiles:
    def test_they_are_three(self, preset):
        _, path = preset
        assert sorted(os.listdir(path)) == [
            "config.json",
            "model.weights.h5",
            "tokenizer.json",
        ]
        assert load_tokenizer(path / "tokenizer.json").vocab_size == 19

    def test_without_a_tokenizer_they_are_two(self, make_model, tmp_path):
        make_model().save_to_preset(tmp_path)
        assert sorted(os.listdir(tmp_path)) == [
            "config.json",
            "model.weights.h5",
        ]

    def test_the_config_is_for_people_too(self, preset):
        model, path = preset
        text = (path / "config.json").read_text(encoding="utf-8")
        config = json.loads(text)
        assert config["format_version"] == 1
        assert config["model"]["spans"]["lengths"] == [5, 0, 11]
        assert config["model"]["vocab_size"] == 19
        assert config["model"]["cutoffs"] == []
        # Where it runs is no property of the model.
        assert "dtype" not in config["model"]
        assert text.count("\n") > 10


class TestAtLoad:
    def test_other_spans(self, preset, make_tokens, run_segments):
        model, path = preset
        tokens = make_tokens(2, 14)
        loaded = Model.from_preset(path, spans=(0, 3, 17))
        assert loaded.spans.lengths == (0, 3, 17)
        logits, _ = run_segments(loaded, tokens, [7, 7])
        other = model.with_spans((0, 3, 17))
        np.testing.assert_array_equal(
            logits, run_segments(other, tokens, [7, 7])[0]
        )
        # Which are not those of the preset's own spans.
        own, _ = run_segments(model, tokens, [7, 7])
        assert np.max(np.abs(logits - own)) > 1e-3

    def test_spans_may_say_what_is_long(self, preset):
        spans = lrm.MemorySpans([3, 3, 5], is_long=[True, False, False])
        assert Model.from_preset(preset[1], spans=spans).spans == spans

    @pytest.mark.parametrize(
        ("dtype", "compute"),
        [("mixed_bfloat16", "bfloat16"), ("float64", "float64")],
    )
    def test_another_dtype(self, preset, make_tokens, dtype, compute):
        model, path = preset
        tokens = make_tokens(2, 7)
        loaded = Model.from_preset(path, dtype=dtype)
        logits, memories = loaded(tokens)
        assert keras.backend.standardize_dtype(memories["memory_00"].dtype) == (
            compute
        )
        tolerance = 0.2 if compute == "bfloat16" else 1e-4
        np.testing.assert_allclose(
            np.array(logits), np.array(model(tokens)[0]), atol=tolerance
        )

    def test_the_global_dtype_policy_is_the_default(self, preset):
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            assert Model.from_preset(preset[1]).compute_dtype == "bfloat16"
        finally:
            keras.config.set_dtype_policy("float32")


class TestRefusals:
    def test_no_folder(self, tmp_path):
        message = refusal(FileNotFoundError, tmp_path / "nowhere")
        assert f"no preset at {tmp_path / 'nowhere'}" in message

    def test_no_weights(self, preset):
        path = preset[1]
        os.remove(path / "model.weights.h5")
        message = refusal(FileNotFoundError, path)
        assert str(path / "model.weights.h5") in message

    @pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.97])
    def test_truncated_weights(self, preset, share):
        file = preset[1] / "model.weights.h5"
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * share)])
        assert f"{file} cannot be loaded" in refusal(ValueError, preset[1])

    def test_weights_of_another_kind(self, preset):
        file = preset[1] / "model.weights.h5"
        file.write_bytes(b"not HDF5 at all\n" * 101)
        assert f"{file} cannot be loaded" in refusal(ValueError, preset[1])

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b'{"format_version": 1, "mod',
            b"[]",
            b"3",
            b'{"format_version": 1}',
            b'{"format_version": 1, "model": []}',
            b'{"format_version": 1, "model": {"spans": [5, 0, 11]}}',
            b'{"model": {"spans": {"lengths": [5]}}}',
            b"\xff\xfe",
        ],
    )
    def test_a_damaged_config(self, preset, content):
        file = preset[1] / "config.json"
        file.write_bytes(content)
        assert f"{file} is no preset's config" in refusal(ValueError, preset[1])

    @pytest.mark.parametrize("version", [2, 0, "1", None])
    def test_another_format_version(self, preset, version):
        path = preset[1]
        edit_config(path, lambda config: config.update(format_version=version))
        message = refusal(ValueError, path)
        assert str(path / "config.json") in message
        assert f"format version {version!r}" in message
        assert "reads version 1" in message

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("vocab_size", 23),
            ("hidden_size", 10),
            ("num_heads", 2),
            ("head_size", 7),
            ("inner_size", 13),
            ("untie_biases", False),
            ("spans", {"lengths": [5, 0], "is_long": [True, False]}),
            ("spans", {"lengths": [5, 0, 11, 3]}),
        ],
    )
    def test_a_config_that_contradicts_the_weights(self, preset, name, value):
        path = preset[1]
        edit_config(path, lambda config: config["model"].update({name: value}))
        message = refusal(ValueError, path)
        assert f"{path / 'model.weights.h5'} cannot be loaded" in message

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("vocab_size", "many"),
            ("hidden_size", 13),
            ("dropout", 2),
            ("clamp_length", -1),
            ("lengths", [5, -1, 11]),
            ("lengths", "no"),
            ("lengths", 7),
            ("num_layers", 3),
            ("cutoffs", [8, 5]),
            ("cutoffs", "58"),
            ("div_value", 0),
            ("embedding_size", 0),
        ],
    )
    def test_a_config_that_describes_no_model(self, preset, name, value):
        path = preset[1]
        edit_config(
            path,
            lambda config: (
                config["model"]["spans"]
                if name == "lengths"
                else config["model"]
            ).update({name: value}),
        )
        message = refusal(ValueError, path)
        assert str(path / "config.json") in message
        assert name in message

    def test_a_config_that_lacks_something(self, preset):
        path = preset[1]
        edit_config(path, lambda config: config["model"].pop("inner_size"))
        message = refusal(ValueError, path)
        assert str(path / "config.json") in message
        assert "inner_size" in message

    @pytest.mark.parametrize("spans", [(5, 0), [5, 0, 11, 3]], ids=str)
    def test_spans_of_another_number_of_layers(self, preset, spans):
        message = refusal(ValueError, preset[1], spans=spans)
        assert "spans must name 3 layers" in message
        assert f"got {len(spans)}: {list(spans)}" in message

    @pytest.mark.parametrize(
        "kwargs", [{"spans": (5, 0, -11)}, {"dtype": "float-11"}], ids=str
    )
    def test_the_callers_mistakes_are_not_blamed_on_the_files(
        self, preset, kwargs
    ):
        message = refusal(ValueError, preset[1], **kwargs)
        assert "-11" in message
        assert "config.json" not in message

    def test_a_failing_save_leaves_no_half_preset(
        self, make_model, tmp_path, monkeypatch
    ):
        # Given a disk that is full when the weights are written,
        model = make_model()

        def fail(path):
            with open(path, "wb") as stream:
                stream.write(b"half")
            raise OSError("No space left on device")

        monkeypatch.setattr(model, "save_weights", fail)
        with pytest.raises(OSError, match="No space left"):
            model.save_to_preset(tmp_path)
        # then what is there is not taken for a preset.
        assert "no preset at" in refusal(FileNotFoundError, tmp_path)
