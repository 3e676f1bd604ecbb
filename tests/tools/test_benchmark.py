"""Tests of tools/benchmark.py: that it measures, not how fast anything is."""

import importlib
import pathlib
import re

import pytest

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
    assert "takes one of input, train, score, serve" in line


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


TINY = {
    "vocab_size": 31,
    "hidden_size": 12,
    "num_heads": 3,
    "head_size": 4,
    "inner_size": 17,
}


def test_training_steps_are_measured_beside_a_peer(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "tools")
    benchmark = importlib.import_module("training_benchmark")

    def row(name, spans=(11, 11), **options):
        return benchmark.Row(
            name, spans, TINY, batch_size=2, segment_length=7, **options
        )

    rows = [
        row(benchmark.OURS),
        row(benchmark.OURS, (3, 11), rematerialize=True),
        row("Model Garden"),
        row("Hugging Face"),
    ]
    measured, ceilings = benchmark.compare(rows, 2, peer_python=None)

    # Who is missing is said, and all others are there.
    assert "Hugging Face, float32, 2 of 2 x 11: missing" in (
        capsys.readouterr().out
    )
    assert [row["name"] for row in measured] == [
        "official_lrm",
        "official_lrm",
        "Model Garden",
    ]
    for row in measured:
        assert 0 < row["fastest"] <= row["seconds"] <= row["slowest"]
        assert row["peak_mib"] >= row["framework_mib"] > 0
        assert 0 < row["share_of_ceiling"] < 1
        rate = row["tokens_per_second"]
        assert rate * row["seconds"] == pytest.approx(14)
    ours, short, peer = measured
    # The peer has a bias of segments, and its softmax has none.
    assert ours["parameters"] == short["parameters"]
    assert ours["parameters"] == peer["parameters"] + 31 - 3 * 4
    assert short["gflop"] < ours["gflop"] == peer["gflop"]
    assert ceilings["float32"] > 0 and ceilings["memory"] > 0
    assert len(list(benchmark.ratio_lines(measured))) == 2
    assert all(benchmark.line_of(row) for row in measured)


def test_each_growth_changes_one_thing(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    benchmark = importlib.import_module("training_benchmark")
    groups = benchmark.growth_rows(dropout=0.0)
    assert list(groups) == [
        "long memories",
        "their length",
        "segment length",
        "lanes",
        "layers",
    ]
    for rows in groups.values():
        flops = [row.flops for row in rows.values()]
        assert flops == sorted(set(flops))


def test_growth_is_drawn(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "tools")
    growth_plot = importlib.import_module("growth_plot")

    def group(name, values):
        rows = [
            {
                "value": value,
                "seconds": 0.5 * value,
                "fastest": 0.4 * value,
                "slowest": 0.7 * value,
                "peak_mib": 1024.0,
            }
            for value in values
        ]
        return {"group": name, "rows": rows}

    results = [group("lanes", [1, 2, 4]), group("their length", [0, 4096])]
    paths = [tmp_path / "first.svg", tmp_path / "second.svg"]
    for path in paths:
        growth_plot.plot(results, str(path))
    picture = paths[0].read_text()
    assert picture == paths[1].read_text()
    for text in ("lanes", "their length", "seconds a step", "4096"):
        assert f">{text}<" in picture
    # The axes reach to the group that takes longest, 2048 s.
    assert ">2000<" in picture


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--plot=a.svg",), "--plot goes with --table=growth; got peers"),
        (
            ("--table=growth", "--plot=a.gif"),
            "--plot must end in .svg, .png, .pdf; got 'a.gif'",
        ),
        (
            ("--table=growth", "--plot=nowhere/a.svg"),
            "--plot: there is no folder nowhere",
        ),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_refused(refusal, arguments, message):
    assert message in refusal(BENCHMARK, "train", *arguments)


def test_a_table_of_another_command_is_refused(refusal):
    line = refusal(BENCHMARK, "train", "--table=wire")
    assert "--table of train must be one of peers, depth, growth" in line


def test_an_interpreter_that_is_not_there_is_refused(refusal):
    line = refusal(BENCHMARK, "train", "--peer_python=nowhere/python")
    assert "--peer_python must be an interpreter" in line
    assert "nowhere/python" in line


def test_a_dropout_of_one_is_refused(refusal):
    line = refusal(BENCHMARK, "train", "--dropout=1")
    assert "--dropout must be from 0 to below 1; got 1.0" in line


def test_scoring_is_measured_at_each_segment_length(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    benchmark = importlib.import_module("scoring_benchmark")
    monkeypatch.setattr(benchmark, "SEGMENT_LENGTHS", (5, 7))
    lines = list(benchmark.rows(TINY, 3, 35, repeats=2, dtype="float32"))
    assert lines[0].split()[:2] == ["T", "tokens/s"]
    assert [line.split()[0] for line in lines[1:]] == ["5", "7"]
    assert lines[2].split()[-1] == "1.00"
