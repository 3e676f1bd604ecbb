"""Tests of tools/show_spans.py: diagram, state, parameters and FLOPs."""

import pathlib
import re

import pytest

from official_lrm import MemorySpans
from official_lrm.models.flop_count import count_flops
from official_lrm.models.parameter_count import count_parameters

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"

SHOW = "tools/show_spans.py"


def row(result, name):
    """Amounts and share in the only row of this name."""
    (line,) = [
        line
        for line in result.stdout.splitlines()
        if line.startswith(f"  {name}  ")
    ]
    return re.split(r" {2,}", line.strip().removeprefix(name).strip())


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


@pytest.mark.parametrize(
    ("flags", "figure"),
    [
        # Dai et al. (2019) on enwik8 and WikiText-103.
        (["--num_layers=24", "--long=3800"], "356.25 MiB"),
        (["--num_layers=18", "--long=1600"], "112.50 MiB"),
    ],
    ids=str,
)
def test_states_that_the_paper_quotes(call_tool, flags, figure):
    result = call_tool(SHOW, *flags, "--hidden_size=1024", "--test_long=0")
    assert row(result, "in training") == [figure, figure, "100%"]
    assert "at test" not in result.stdout


def test_a_published_file(call_tool):
    file = CONFIGS / "enwik8" / "lrm04_interleaved.yaml"
    result = call_tool(SHOW, f"--config_file={file}")
    assert result.status == 0
    spans = MemorySpans.arrange(24, 4)
    assert result.stdout.startswith(spans.diagram())
    assert "parameters: 277,231,820 " in result.stdout
    assert "state, batch 1, float32" in result.stdout
    assert row(result, "in training") == ["46.00 MiB", "216.00 MiB", "21%"]
    at_test = row(result, "long 6000, at test")
    assert at_test == ["103.75 MiB", "562.50 MiB", "18%"]
    assert "forward FLOPs per token, T 384, batch 32 " in result.stdout
    # A layer's: 2 * ((2 + 2 * 7 + 7 / 32) * 1024 * 1024
    #   + 3 * 2688 * 1024 + 2 * 1024 * 3072); then 7 becomes 4 / 3.
    long_row = row(result, "span 2304, each of 4 layers (5 11 17 23)")
    assert long_row == ["63.11 M", "63.11 M", "100%"]
    name = "span 128, each of 20 layers (0-4 6-10 12-16 18-22)"
    assert row(result, name) == ["25.60 M", "63.11 M", "41%"]
    assert row(result, "softmax") == ["0.42 M", "0.42 M", "100%"]
    # 4 x 63.11 + 20 x 25.60 + 0.42; 24 x 63.11 + 0.42.
    assert row(result, "sum") == ["764.92 M", "1,515.09 M", "50%"]
    training = row(result, "sum in training, nominally 3 x")
    assert training == ["2,294.75 M", "4,545.26 M", "50%"]
    assert "cutoff" not in result.stdout


def test_a_published_file_without_long_memories(call_tool):
    file = CONFIGS / "enwik8" / "lrm00.yaml"
    result = call_tool(SHOW, f"--config_file={file}", "--batch_size=3")
    assert "state, batch 3, float32" in result.stdout
    assert row(result, "in training") == ["36.00 MiB", "648.00 MiB", "6%"]
    at_test = row(result, "long 6000, at test")
    assert at_test == ["36.00 MiB", "1,687.50 MiB", "2%"]
    # The lanes of training, not of --batch_size.
    assert "T 384, batch 32 " in result.stdout
    assert row(result, "sum") == ["614.88 M", "1,515.09 M", "41%"]


def test_an_adaptive_softmax(call_tool):
    file = CONFIGS / "wikitext103" / "lrm03_last.yaml"
    result = call_tool(SHOW, f"--config_file={file}", "--segment_length=5")
    assert MemorySpans.arrange(18, 3, "last").diagram() in result.stdout
    assert "parameters: 285,205,322 " in result.stdout
    assert "T 5, batch 32 " in result.stdout
    assert "  span 2304, each of 3 layers (15-17) " in result.stdout
    # 2 * 1024 * (1024 + 256 + 64 + 16); and 2 * 1024 * 20003 beside it.
    assert row(result, "embedding") == ["2.79 M", "2.79 M", "100%"]
    assert row(result, "softmax") == ["43.75 M", "43.75 M", "100%"]
    # 2 * 256 * 20000, 2 * 64 * 160000 and 2 * 16 * 67735.
    assert result.stdout.endswith("cluster, 10.24 M, 20.48 M, 2.17 M\n")


def test_files_one_over_the_other(call_tool):
    result = call_tool(
        SHOW,
        f"--config_file={CONFIGS / 'text8' / 'base_12l.yaml'}",
        f"--config_file={CONFIGS / 'local_tiny.yaml'}",
    )
    assert MemorySpans.arrange(12, 12, long=96).diagram() in result.stdout
    assert "T 32, batch 4 " in result.stdout
    assert row(result, "span 96, each of 12 layers (0-11)")[0].endswith(" k")


def test_an_experiment(call_tool):
    result = call_tool(SHOW, "--experiment=lrm_wikitext103")
    assert result.status == 0
    assert MemorySpans.arrange(18, 3).diagram() in result.stdout
    assert "parameters: 285,205,322 " in result.stdout


def test_sizes_without_a_config(call_tool):
    result = call_tool(
        SHOW,
        "--spans=5,0,11",
        *("--hidden_size=14", "--num_heads=3", "--head_size=5"),
        *("--inner_size=17", "--vocab_size=31", "--batch_size=2"),
        *("--segment_length=7", "--untie_biases"),
    )
    assert result.status == 0
    assert "T 7, batch 2 " in result.stdout
    sizes = {
        "vocab_size": 31,
        "hidden_size": 14,
        "num_heads": 3,
        "head_size": 5,
        "inner_size": 17,
        "untie_biases": True,
    }
    assert f"parameters: {count_parameters(3, **sizes):,} " in result.stdout
    ours, full = (
        count_flops(spans, 7, 2, **sizes) for spans in ((5, 0, 11), [11] * 3)
    )
    shown = [f"{each.total / 14 / 1000:,.2f} k" for each in (ours, full)]
    assert row(result, "sum") == [*shown, f"{ours.total / full.total:.0%}"]
    for layer, span in enumerate((5, 0, 11)):
        figure = f"{ours.layers[layer] / 14 / 1000:,.2f} k"
        assert row(result, f"span {span}, layer {layer}")[0] == figure


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
        (["--num_layers=3", "--segment_length=0"], ("segment_length", "0")),
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
