"""Tests of tools/benchmark.py: that it measures, not how fast anything is."""

import re

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
