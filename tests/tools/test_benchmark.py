"""Tests of tools/benchmark.py: that it measures, not how fast anything is."""

import importlib
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
BENCHMARK = "tools/benchmark.py"


def test_it_prints_every_figure(call_tool, train_flags):
    flags = [
        flag for flag in train_flags() if not flag.startswith("--model_dir")
    ]
    result = call_tool(
        BENCHMARK, "input", *flags, "--batches=3", "--train_steps=2"
    )
    assert result.status == 0
    lines = dict(
        re.match(r"(\w+): +(.*)", line).groups()
        for line in result.stdout.splitlines()
        if re.match(r"\w+: ", line)
    )
    assert list(lines) == [
        "corpus",
        "tokenizer",
        "tokenize",
        "cached",
        "input",
        "memory",
        "training",
    ]
    assert "ByteTokenizer of 256 ids" in lines["tokenizer"]
    assert re.match(r"[\d,]+ tokens in [\d.]+ s, ", lines["tokenize"])
    assert re.match(r"[\d,]+ tokens/s$", lines["input"])
    assert "times as fast" in lines["training"]


def test_training_may_be_left_out(call_tool, train_flags):
    result = call_tool(BENCHMARK, "input", *train_flags(), "--train_steps=0")
    assert result.status == 0
    assert "training:" not in result.stdout


def test_an_unknown_experiment_is_refused(refusal):
    line = refusal(BENCHMARK, "input", "--experiment=lrm_enwik9")
    assert "lrm_enwik9" in line
    assert "lrm_enwik8" in line


def test_one_of_its_commands_is_needed(refusal):
    line = refusal(BENCHMARK, "--calls=3")
    assert "takes one of input, serve" in line


def test_decoding_is_measured_beside_its_floor(call_tool, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    serving_benchmark = importlib.import_module("serving_benchmark")
    sizes = {"hidden_size": 14, "head_size": 5, "inner_size": 17}
    monkeypatch.setattr(
        serving_benchmark,
        "SIZES_12",
        {"vocab_size": 23, "num_heads": 3, **sizes},
    )
    monkeypatch.setattr(serving_benchmark, "LONG", 11)
    monkeypatch.setattr(serving_benchmark, "SHORT", 5)
    result = call_tool(
        BENCHMARK, "serve", "--table=decode", "--calls=1", "--tokens_per_call=2"
    )
    assert result.status == 0
    rows = re.findall(
        r"^(\w+), (full memory|2 long) +[\d.]+ ms a token, .*; floor [\d.]+ ms",
        result.stdout,
        re.MULTILINE,
    )
    assert rows == [
        ("float32", "full memory"),
        ("float32", "2 long"),
        ("bfloat16", "full memory"),
        ("bfloat16", "2 long"),
    ]
