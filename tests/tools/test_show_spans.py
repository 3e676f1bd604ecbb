"""Tests of tools/show_spans.py: diagram, state and parameters."""

import pytest

from official_lrm import MemorySpans

SHOW = "tools/show_spans.py"


def test_an_arrangement_as_a_process(run_tool):
    result = run_tool(
        SHOW, "--num_layers=24", "--num_long=4", "--hidden_size=1024"
    )
    assert result.status == 0
    assert not result.stderr
    spans = MemorySpans.arrange(24, 4)
    assert result.stdout.startswith(spans.diagram())
    # 4 x 2304 + 20 x 128 positions of 4 KiB; of 24 x 2304; and at 6000.
    for figure in ("46.00 MiB", "216.00 MiB", "21%", "103.75 MiB"):
        assert figure in result.stdout


def test_spans_one_by_one(call_tool):
    result = call_tool(
        SHOW,
        "--spans=128,0,2304",
        "--hidden_size=1024",
        "--batch_size=3",
        "--dtype=bfloat16",
        "--test_long=0",
    )
    assert result.status == 0
    assert MemorySpans([128, 0, 2304]).diagram() in result.stdout
    assert "batch 3, bfloat16" in result.stdout
    # 2432 positions of 2 KiB, 3 lanes.
    assert f"{2432 * 2 * 3 / 1024:.2f} MiB" in result.stdout
    assert "6000" not in result.stdout


@pytest.mark.parametrize(
    ("flags", "lengths"),
    [
        (["--num_layers=5", "--num_long=2", "--placement=first"], "LLsss"),
        (["--num_layers=5", "--num_long=2", "--placement=last"], "sssLL"),
        (["--num_layers=5", "--num_long=1", "--placement=middle"], "ssLss"),
        (["--num_layers=5", "--num_long=2"], "sLssL"),
        (["--num_layers=5"], "LLLLL"),
        (["--num_layers=5", "--num_long=0"], "sssss"),
    ],
    ids=str,
)
def test_placements(call_tool, flags, lengths):
    result = call_tool(SHOW, *flags, "--long=13", "--short=3")
    assert result.status == 0
    spans = MemorySpans([{"L": 13, "s": 3}[kind] for kind in lengths])
    shown = [line.split()[3] for line in result.stdout.splitlines()]
    assert shown == [str(length) for length in reversed(spans)]


def test_an_experiment(call_tool):
    result = call_tool(SHOW, "--experiment=lrm_enwik8")
    assert result.status == 0
    assert MemorySpans.arrange(24, 4).diagram() in result.stdout
    # 24 layers, and V = 256 instead of the published 204: 52 * (1024 + 1).
    assert f"parameters: {277_231_820 + 52 * 1025:,}" in result.stdout
    assert "46.00 MiB" in result.stdout


def test_a_config_file_and_overrides(call_tool, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "{task: {model: {num_layers: 5, spans: {num_long: 2, long: 13}}}}"
    )
    result = call_tool(
        SHOW,
        f"--config_file={file}",
        "--params_override=task.model.spans.short=3",
    )
    assert result.status == 0
    spans = MemorySpans.arrange(5, 2, long=13, short=3)
    assert spans.diagram() in result.stdout
    assert "parameters: " in result.stdout


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], ("--experiment", "--spans", "--num_layers")),
        (["--spans=128,x"], ("--spans", "'128,x'", "integers")),
        (["--spans=128,-1"], ("-1", "not be negative")),
        (["--num_layers=0"], ("num_layers", "0")),
        (["--num_layers=3", "--hidden_size=0"], ("hidden_size", "0")),
        (["--num_layers=3", "--num_heads=0"], ("num_heads", "0")),
        (["--num_layers=3", "--batch_size=0"], ("batch_size", "0")),
        (["--num_layers=3", "--test_long=-1"], ("test_long", "-1")),
        (["--num_layers=3", "--num_long=5"], ("num_long", "got 5", "0 to")),
        (
            ["--num_layers=3", "--num_long=1", "--placement=top"],
            ("placement", "'top'", "interleaved, first, last, middle"),
        ),
        (["--num_layers=3", "--long=-5"], ("long", "-5")),
        (["--num_layers=3", "--spans=5,7,11"], ("--spans", "--num_layers")),
        (["--experiment=lrm_quickstart", "--spans=5,7"], ("--spans",)),
        (["--experiment=lrm_text9"], ("'lrm_text9'", "lrm_enwik8")),
        (["--config_file=/no/such.yaml"], ("/no/such.yaml",)),
        (["--spans=5,7", "--dtype=int8"], ("--dtype=int8", "bfloat16")),
        (["--num_layers=three"], ("--num_layers=three",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusals(refusal, flags, words):
    line = refusal(SHOW, *flags)
    for word in words:
        assert word in line
