"""What is compiled and said, with a compiler of the tests' own."""

import importlib
import json
import pathlib

import pytest

from official_lrm.training import parse_params

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
GIB = 2**30


@pytest.fixture
def tpu_report(monkeypatch):
    """The module, of a topology of 8 cores."""
    pytest.importorskip("jax")
    monkeypatch.syspath_prepend(TOOLS)
    module = importlib.import_module("tpu_report")
    monkeypatch.setattr(
        module.tpu_compiler, "topology_devices", lambda name: [None] * 8
    )
    return module


@pytest.fixture
def compile_with(monkeypatch, tpu_report):
    """Sets what programs need: a function of the program and its options."""

    def set_needs(gib):
        def compile_apart(program, settings, options, topology, lanes):
            needed = gib(program, options, sum(settings.model["spans"].is_long))
            if needed > 15.48:
                raise tpu_report.DoesNotFit(f"needs {needed}GiB")
            return tpu_report.tpu_compiler.Figures(
                hbm_peak=int(needed * GIB),
                temporaries=int(needed * GIB / 2),
                arguments=GIB,
                flops=61.5e12,
                bytes_accessed=45e9,
            )

        monkeypatch.setattr(
            tpu_report.tpu_compiler, "compile_apart", compile_apart
        )

    return set_needs


def config(override=""):
    lanes = "task.train_data.global_batch_size=16"
    return parse_params(
        "lrm_enwik8", params_override=f"{lanes},{override}".rstrip(",")
    )


def sweep(tpu_report, output):
    """Table 1, one lane a core, written to `output`."""
    tpu_report.report(
        config(),
        "v3:2x2",
        ["gradients"],
        lanes_per_core=1,
        sweep=True,
        output=str(output),
    )


def test_what_does_not_fit_is_made_to(
    tpu_report, compile_with, capsys, tmp_path
):
    # Given a step that only fits when lanes are worked through one by one,
    compile_with(lambda program, options, num_long: 20 / options.num_groups)
    output = tmp_path / "figures.json"
    tpu_report.report(config(), "v3:2x2", ["train"], output=str(output))
    # then the cheaper ways are tried, and this one is named.
    out = capsys.readouterr().out
    figures = json.loads(output.read_text())
    assert [row["fits"] for row in figures["rows"]] == [False, False, True]
    (verdict,) = figures["verdicts"]
    assert verdict["fits_as"] == "float32, accumulate 2"
    assert "does not fit: needs 20.0GiB" in out
    assert "float32, rematerialize" in out
    assert "bfloat16" not in out
    assert out.splitlines()[-1] == (
        "train does not fit as float32; fits as float32, accumulate 2"
    )


def test_what_fits_is_said_and_written(
    tpu_report, compile_with, capsys, tmp_path
):
    compile_with(lambda program, options, num_long: 2)
    output = tmp_path / "figures.json"
    tpu_report.report(
        config(),
        "v3:2x2",
        ["train", "evaluate"],
        output=str(output),
        source={"experiment": "lrm_enwik8", "config_files": ["a.yaml"]},
    )
    out = capsys.readouterr().out.splitlines()
    assert "train fits as float32" in out
    assert out[-1] == "evaluate fits as float32"
    figures = json.loads(output.read_text())
    assert figures["config_files"] == ["a.yaml"]
    assert (figures["cores"], figures["teraflops_per_core"]) == (8, 61.5)
    assert [v["fits_as"] for v in figures["verdicts"]] == ["float32"] * 2
    assert all(row["hbm_peak_bytes"] == 2 * GIB for row in figures["rows"])


def test_all_of_it_at_once_is_the_last_resort(tpu_report, compile_with, capsys):
    compile_with(lambda program, options, num_long: 20)
    tpu_report.report(config(), "v3:2x2", ["train"])
    *_, last, verdict = capsys.readouterr().out.splitlines()
    assert "mixed_bfloat16, rematerialize, accumulate 2" in last
    assert verdict.endswith("nothing makes it fit")


def test_a_killed_compiler_costs_one_row(
    tpu_report, compile_with, capsys, tmp_path
):
    # Given a compiler that the machine has no memory for once,
    def needs(program, options, num_long):
        if num_long == 12:
            raise tpu_report.CompilerKilled("the compiler was killed")
        return 1

    compile_with(needs)
    output = tmp_path / "figures.json"
    # when a table is made, then its other rows are there, and all are written.
    with pytest.raises(ValueError, match="1 of 5 programs were not compiled"):
        sweep(tpu_report, output)
    assert "the compiler was killed" in capsys.readouterr().out
    rows = json.loads(output.read_text())["rows"]
    assert [row["num_long"] for row in rows] == [24, 12, 4, 1, 0]
    assert [row["fits"] for row in rows] == [True, None, True, True, True]
    assert ["killed" in row for row in rows] == [False, True] + [False] * 3


def test_what_was_compiled_is_written_at_once(
    tpu_report, compile_with, tmp_path
):
    def needs(program, options, num_long):
        if num_long == 4:
            raise KeyboardInterrupt
        return 1

    compile_with(needs)
    output = tmp_path / "figures.json"
    with pytest.raises(KeyboardInterrupt):
        sweep(tpu_report, output)
    assert len(json.loads(output.read_text())["rows"]) == 2


def test_a_sweep_is_table_1(tpu_report, compile_with, capsys, tmp_path):
    compile_with(lambda program, options, num_long: 1 + num_long / 10)
    output = tmp_path / "figures.json"
    sweep(tpu_report, output)
    figures = json.loads(output.read_text())
    rows = figures["rows"]
    assert [row["num_long"] for row in rows] == [24, 12, 4, 1, 0]
    assert rows[2]["paper_activations_gb"] == 1.1
    assert rows[2]["paper_us_per_token"] == 191
    (ratio,) = figures["ratios"]
    assert ratio["temporaries"] == pytest.approx(3.4 / 1.4)
    assert ratio["paper_time"] == pytest.approx(2.12, abs=0.005)
    for row in rows:
        # 1 s of FLOPs and 0.1 s of bytes, for 384 tokens.
        assert row["roofline_us_per_token"] == pytest.approx(1e6 / 384)
        assert row["bound"] == "compute"
    out = capsys.readouterr().out
    for published in ("3.40, 405", "2.80, 273", "1.10, 191", "0.20, 143"):
        assert published in out
    # 3.4 / 1.4 GiB.
    assert out.splitlines()[-1] == (
        "24:4 long memories, gradients, float32: temporaries 2.43 (paper 3.09),"
        " roofline time 1.00 (paper 2.12)"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"topology": "v9:2x2"}, ["--topology", "v2, v3, v4", "'v9:2x2'"]),
        ({"topology": "v3"}, ["--topology", "v3:4x4", "'v3'"]),
        ({"programs": ["step"]}, ["--programs", "train", "'step'"]),
        ({"also": ["luck"]}, ["--with", "rematerialize", "'luck'"]),
        ({"output": "missing/a.json"}, ["--output", "missing"]),
        ({"output": str(TOOLS)}, ["--output", "file", "is a folder"]),
        (
            {"override": "trainer.gradient_accumulation_steps=3"},
            ["gradient_accumulation_steps", "1, 2;", "got 3"],
        ),
        (
            {"override": "task.validation_data.global_batch_size=3"},
            ["task.validation_data.global_batch_size", "8 cores", "got 3"],
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_errors_say_what_is_allowed(tpu_report, changes, words):
    changes = {"topology": "v3:2x2", "programs": ["train", "evaluate"]} | (
        changes
    )
    params = config(changes.pop("override", ""))
    with pytest.raises(ValueError) as error:
        tpu_report.report(params, **changes)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message
