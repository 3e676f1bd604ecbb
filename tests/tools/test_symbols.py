"""A run of symbols through all tools, and what they refuse of one."""

import collections
import json

import numpy as np
import pytest

import official_lrm as lrm

TRAIN = "tools/train.py"
SYMBOLS = {"task__corpus__tokenizer": "symbols", "task__model__vocab_size": 29}


def test_every_tool_uses_the_ids_of_the_run(
    call_tool, train_flags, tmp_path, text_file
):
    run, exports = tmp_path / "run", tmp_path / "exports"
    text = text_file.read_bytes()
    symbols = [byte for byte, _ in collections.Counter(text).most_common()]

    # Given a run,
    flags = train_flags(**SYMBOLS, task__model__num_layers=1)
    trained = call_tool(TRAIN, *flags, f"--model_dir={run}", "--mode=train")
    assert trained.status == 0
    spare = 29 - len(symbols)
    expected = f"{len(symbols)} symbols; {spare} ids of 29 stand for nothing"
    assert f"tokens: {expected}" in trained.stdout.splitlines()
    exported = call_tool(
        "export/export_saved_model.py",
        f"--model={run}",
        f"--export_dir={exports}",
    )
    assert exported.status == 0
    # then its ids are everywhere,
    for folder in (run, run / "preset", exports / "1" / "assets.extra"):
        config = json.loads((folder / "tokenizer.json").read_text())
        assert config == {
            "type": "symbols",
            "symbols": symbols,
            "skip_newlines": False,
        }
    # and its figures are of them,
    file = tmp_path / "figures.jsonl"
    evaluated = call_tool(
        "tools/evaluate.py",
        f"--model={run}",
        "--max_tokens=7",
        "--decode_tokens=0",
        f"--output={file}",
    )
    assert evaluated.status == 0
    (record,) = [json.loads(line) for line in file.open()]
    validation = text[len(text) * 90 // 100 :][:8]
    tokens = np.array([[symbols.index(byte) for byte in validation]])
    model = lrm.TransformerXLLanguageModel.from_preset(run / "preset")
    log_probs, _ = model.score(tokens[:, :-1], tokens[:, 1:])
    assert record["nats"] == pytest.approx(-float(np.sum(log_probs)), rel=1e-5)
    # and its text.
    written = call_tool(
        "tools/generate.py",
        f"--model={exports}",
        "--prompt=the",
        "--max_new_tokens=41",
    )
    assert written.status == 0
    assert written.stdout.startswith("the")
    assert set(written.stdout) <= {*map(chr, symbols), "\ufffd", "\n"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"task__corpus__tokenizer": "letters"},
            ("task.corpus.tokenizer", "'letters'", "bytes, symbols, words"),
        ),
        (
            {"task__corpus__tokenizer": 7},
            ("task.corpus.tokenizer", "must be a string", "7"),
        ),
        (
            {**SYMBOLS, "task__model__vocab_size": 5},
            ("task.model.vocab_size", "got 5", "symbols of corpus 'text'"),
        ),
        (
            {"task__model__vocab_size": 267_735},
            ("task.model.vocab_size", "at most 256", "267735"),
        ),
    ],
    ids=["letters", "7", "few", "many"],
)
def test_wrong_configs(refusal, train_flags, changes, words):
    line = refusal(TRAIN, *train_flags(**changes), "--dry_run")
    for word in words:
        assert word in line


def test_a_run_does_not_go_on_with_other_ids(refusal, train_flags, run_copy):
    flags = train_flags(
        **{**SYMBOLS, "task__model__vocab_size": 256}, trainer__train_steps=6
    )
    line = refusal(TRAIN, *flags, f"--model_dir={run_copy}")
    assert f"{run_copy} was trained with another vocabulary" in line
    assert "it was 256 bytes and is" in line


@pytest.mark.parametrize("tool", ["tools/evaluate.py", "tools/generate.py"])
def test_a_preset_that_does_not_say_what_its_ids_are(refusal, tool, tmp_path):
    model = lrm.TransformerXLLanguageModel(1009, (5,), 14, 3, 5, 17)
    model.save_to_preset(tmp_path)
    line = refusal(tool, f"--model={tmp_path}")
    assert f"{tmp_path} holds no tokenizer" in line
    assert "1009 ids" in line
