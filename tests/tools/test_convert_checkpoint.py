"""Tests of tools/convert_checkpoint.py: from files to a preset."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import safetensors.numpy

import official_lrm as lrm
from official_lrm.data import load_tokenizer

TOOL = "tools/convert_checkpoint.py"
ROOT = pathlib.Path(__file__).resolve().parents[2]
TF1_CHECKPOINT = ROOT / "tests/testdata/tf1_char/model.ckpt-1234"

# A user's script: nothing but these two imports.
FRESH = """
import sys
import keras, official_lrm
import numpy as np

ids, preset, keras_file = sys.argv[1:]
for path, model in (
    (preset, official_lrm.TransformerXLLanguageModel.from_preset(preset)),
    (keras_file, keras.saving.load_model(keras_file)),
):
    memories = model.initial_memories(2)
    outputs = []
    for tokens in np.split(np.load(ids), 3, axis=1):
        log_probs, memories = model(tokens, memories)
        outputs.append(keras.ops.log_softmax(log_probs))
    np.save(path + ".npy", np.concatenate(outputs, axis=1))
"""


@pytest.fixture
def huggingface(golden, tmp_path):
    """Makes the folder that Hugging Face would have saved."""

    def make(name):
        file = golden(name)
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(file.config))
        # It leaves out what is stored under another name.
        tensors = {
            key: np.ascontiguousarray(value)
            for key, value in file.state_dict.items()
            if not key.startswith("crit.out_layers.")
            or not key.endswith("weight")
        }
        safetensors.numpy.save_file(tensors, folder / "model.safetensors")
        return folder

    return make


@pytest.fixture
def tf1_config(golden, tmp_path):
    path = tmp_path / "flags.json"
    path.write_text(json.dumps(golden("transfo_xl_char").config))
    return path


def test_from_hugging_face_to_a_preset(
    call_tool, huggingface, golden, tmp_path
):
    folder = huggingface("transfo_xl_word")
    vocabulary = tmp_path / "words.txt"
    words = ["<eos>", "<unk>", *(f"word{i}" for i in range(58))]
    vocabulary.write_text("".join(f"{word}\n" for word in words))
    output = tmp_path / "preset"
    result = call_tool(
        TOOL,
        "--source=huggingface",
        f"--checkpoint={folder}",
        f"--output={output}",
        f"--vocabulary={vocabulary}",
        "--num_long=1",
        "--placement=last",
        "--long=11",
        "--short=5",
    )
    assert result.status == 0, result.stderr
    # Every tensor is listed, with what became of it.
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert "transformer.word_emb.emb_layers.0.weight: used" in lines
    assert (
        "crit.out_projs.1: the same as transformer.word_emb.emb_projs.1"
        in lines
    )
    assert any(
        line.startswith("transformer.pos_emb.inv_freq: skipped: ")
        for line in lines
    )
    # The state dict's 64 but for the softmax's 3 tables.
    tensors = len(golden("transfo_xl_word").state_dict) - 3
    assert any(
        f"{tensors} tensors: {tensors - 3} used, 2 the same under another "
        "name, 1 skipped" in line
        for line in lines
    )
    assert f"wrote {output}" in lines
    model = lrm.TransformerXLLanguageModel.from_preset(output)
    assert tuple(model.spans) == (5, 5, 5, 11)
    assert model.attend_to_empty
    tokenizer = load_tokenizer(output / "tokenizer.json")
    assert tokenizer.get_config() == {"type": "words", "words": words}
    assert not (output / "vocabulary.txt").exists()


def test_symbols_are_numbers_of_bytes(call_tool, tf1_config, tmp_path):
    size = json.loads(tf1_config.read_text())["vocab_size"]
    symbols = list(range(97, 97 + size))
    vocabulary = tmp_path / "symbols.txt"
    vocabulary.write_text("".join(f"{symbol}\n" for symbol in symbols))
    output = tmp_path / "preset"
    result = call_tool(
        TOOL,
        "--source=tf1",
        f"--checkpoint={TF1_CHECKPOINT}",
        f"--config={tf1_config}",
        f"--output={output}",
        f"--vocabulary={vocabulary}",
        "--tokenizer=symbols",
    )
    assert result.status == 0, result.stderr
    tokenizer = load_tokenizer(output / "tokenizer.json")
    assert tokenizer.get_config() == {
        "type": "symbols",
        "symbols": symbols,
        "skip_newlines": True,
    }


def test_a_fresh_process_computes_the_golden_numbers(
    call_tool, huggingface, golden, tmp_path
):
    preset, keras_file = tmp_path / "preset", tmp_path / "model.keras"
    result = call_tool(
        TOOL,
        "--source=huggingface",
        f"--checkpoint={huggingface('transfo_xl_word')}",
        f"--output={preset}",
    )
    assert result.status == 0, result.stderr
    lrm.TransformerXLLanguageModel.from_preset(preset).save(keras_file)
    arrays = golden("transfo_xl_word").arrays
    ids = tmp_path / "ids.npy"
    np.save(ids, arrays["ids"])
    subprocess.run(
        [sys.executable, "-c", FRESH, ids, preset, keras_file],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    expected = [arrays[f"log_probs_{s}"] for s in range(3)]
    for path in (preset, keras_file):
        np.testing.assert_allclose(
            np.load(f"{path}.npy"), np.concatenate(expected, axis=1), atol=1e-4
        )


def test_from_tensorflow_1(call_tool, golden, tf1_config, tmp_path):
    output = tmp_path / "preset"
    result = call_tool(
        TOOL,
        "--source=tf1",
        f"--checkpoint={TF1_CHECKPOINT}",
        f"--config={tf1_config}",
        f"--output={output}",
    )
    assert result.status == 0, result.stderr
    assert "global_step: skipped: the step of the run" in result.stdout
    assert "97 tensors: 48 used" in result.stdout
    arrays = golden("transfo_xl_char").arrays
    model = lrm.TransformerXLLanguageModel.from_preset(output)
    logits, _ = model(arrays["ids"][:, :7])
    np.testing.assert_allclose(
        keras.ops.log_softmax(logits), arrays["log_probs_0"], atol=1e-4
    )


def test_a_dry_run_writes_nothing(call_tool, huggingface, tmp_path):
    folder = huggingface("hf_untied")
    before = sorted(tmp_path.rglob("*"))
    result = call_tool(
        TOOL, "--source=huggingface", f"--checkpoint={folder}", "--dry_run"
    )
    assert result.status == 0, result.stderr
    assert "parameters" in result.stdout
    assert sorted(tmp_path.rglob("*")) == before


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ((), "--source must be given"),
            (("--source=huggingface",), "--checkpoint must be given"),
            (("--source=pickle",), "huggingface"),
            (("--source=tf1", "--checkpoint=x"), "--output or --dry_run"),
            (
                ("--source=tf1", "--checkpoint=x", "--output=y", "--dry_run"),
                "--output or --dry_run",
            ),
            (("--source=tf1", "--checkpoint=x", "--output=y"), "needs config"),
            (
                ("--source=huggingface", "--checkpoint=x", "--output=y"),
                "x is no folder",
            ),
            (
                (
                    "--source=huggingface",
                    "--checkpoint=x",
                    "--output=y",
                    "--config=z",
                ),
                "config goes with source tf1",
            ),
            (
                (
                    "--source=huggingface",
                    "--checkpoint=x",
                    "--output=y",
                    "--spans=1,2",
                    "--num_long=1",
                ),
                "--spans or --num_long, not both",
            ),
            (
                (
                    "--source=huggingface",
                    "--checkpoint=x",
                    "--output=y",
                    "--long=7",
                ),
                "--long needs --num_long",
            ),
        ],
    )
    def test_flags(self, refusal, arguments, expected):
        assert expected in refusal(TOOL, *arguments)

    def test_spans_of_another_number_of_layers(
        self, refusal, huggingface, tmp_path
    ):
        line = refusal(
            TOOL,
            "--source=huggingface",
            f"--checkpoint={huggingface('hf_untied')}",
            f"--output={tmp_path / 'preset'}",
            "--spans=5,5",
        )
        assert "3 layers" in line
        assert not (tmp_path / "preset").exists()

    def test_a_folder_that_holds_a_preset(self, refusal, huggingface, tmp_path):
        folder = huggingface("hf_untied")
        line = refusal(
            TOOL,
            "--source=huggingface",
            f"--checkpoint={folder}",
            f"--output={folder}",
        )
        assert "output must be a new folder" in line

    def test_a_vocabulary_of_another_size(self, refusal, huggingface, tmp_path):
        vocabulary = tmp_path / "words.txt"
        vocabulary.write_text("<eos>\n<unk>\n")
        line = refusal(
            TOOL,
            "--source=huggingface",
            f"--checkpoint={huggingface('hf_untied')}",
            f"--output={tmp_path / 'preset'}",
            f"--vocabulary={vocabulary}",
        )
        assert f"{vocabulary} must hold 31 tokens" in line
        assert "got 2" in line
        assert not (tmp_path / "preset").exists()

    @pytest.mark.parametrize(
        ("kind", "content", "expected"),
        [
            ("words", "<eos>\n<unk>\n\n", "empty line 3"),
            ("symbols", "32\nb\n", "a byte value from 0 to 255"),
            ("bytes", "32\n", "--tokenizer=bytes"),
        ],
    )
    def test_a_vocabulary_of_something_else(
        self, refusal, huggingface, tmp_path, kind, content, expected
    ):
        vocabulary = tmp_path / "words.txt"
        vocabulary.write_text(content)
        line = refusal(
            TOOL,
            "--source=huggingface",
            f"--checkpoint={huggingface('hf_untied')}",
            f"--output={tmp_path / 'preset'}",
            f"--vocabulary={vocabulary}",
            f"--tokenizer={kind}",
        )
        assert expected in line
        assert not (tmp_path / "preset").exists()

    def test_a_config_without_layers(self, refusal, huggingface, tmp_path):
        folder = huggingface("hf_untied")
        (folder / "config.json").write_text("{}")
        for flag in ("--num_long=1", "--spans=1"):
            line = refusal(
                TOOL,
                "--source=huggingface",
                f"--checkpoint={folder}",
                f"--output={tmp_path / 'preset'}",
                flag,
            )
            assert "config " in line
            assert "must be an integer" in line
