"""Compiling for TPUs: a small config for v3, in a process of its own.

Keras has its JAX backend there.
"""

import json
import pathlib
import subprocess
import sys

import pytest

TOOL = "tools/compile_for_tpu.py"
TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"

SMALL = {
    "task.model.num_layers": 2,
    "task.model.hidden_size": 128,
    "task.model.num_heads": 2,
    "task.model.head_size": 64,
    "task.model.inner_size": 256,
    "task.model.dropout": 0.1,
    "task.model.spans.long": 128,
    "task.model.spans.short": 64,
    "task.train_data.global_batch_size": 16,
    "task.train_data.segment_length": 64,
    "task.validation_data.segment_length": 64,
}


def arguments(*more, **changes):
    changes = {name.replace("__", "."): x for name, x in changes.items()}
    override = ",".join(f"{k}={v}" for k, v in {**SMALL, **changes}.items())
    return (
        "--experiment=lrm_quickstart",
        "--topology=v3:2x2",
        f"--params_override={override}",
        *more,
    )


@pytest.fixture(scope="module")
def compiled(run_tool, tmp_path_factory):
    """What the tool prints and writes of a small config."""
    pytest.importorskip("libtpu")
    output = tmp_path_factory.mktemp("compiled") / "figures.json"
    result = run_tool(
        TOOL, *arguments("--with=accumulate", f"--output={output}")
    )
    assert result.status == 0, result.stderr
    return result.stdout, json.loads(output.read_text())


def test_a_small_config_compiles_for_v3(compiled):
    _, figures = compiled
    assert figures["topology"] == "v3:2x2"
    assert figures["jax"] and figures["libtpu"]
    # The whole step, forward and backward, and the evaluation; the first two
    # with the gradient accumulated as well: 16 lanes on 8 cores are 2 each.
    rows = [
        (row["program"], row["num_groups"], row["lanes_per_core"])
        for row in figures["rows"]
    ]
    assert rows == [
        ("train", 1, 2),
        ("train", 2, 2),
        ("gradients", 1, 2),
        ("gradients", 2, 2),
        ("evaluate", 1, 1),
    ]
    for row in figures["rows"]:
        assert "does_not_fit" not in row
        assert row["spans"] == [64, 128]
        assert row["hbm_peak_bytes"] >= row["arguments_bytes"] > 0
        assert row["temporaries_bytes"] > 0
        # The chip's roofline is what the table of chips makes of it.
        compute = row["gflop_per_token"] / 61.5
        memory = row["mb_per_token"] / 450
        assert row["roofline_us_per_token"] == pytest.approx(
            1e3 * max(compute, memory)
        )


def test_the_table_says_that_nothing_ran(compiled):
    stdout, figures = compiled
    assert stdout.startswith("compiled, not run: jax ")
    lines = [line for line in stdout.splitlines() if "float32" in line]
    verdicts = [line for line in lines if " fits as " in line]
    assert len(lines) - len(verdicts) == len(figures["rows"])
    assert len(verdicts) == len(figures["verdicts"]) == 3


def test_the_step_holds_adam_and_the_gradient_does_not(compiled):
    rows = {
        (row["program"], row["num_groups"]): row for row in compiled[1]["rows"]
    }
    train, gradients = rows["train", 1], rows["gradients", 1]
    # Two moments beside the weights.
    difference = train["arguments_bytes"] - gradients["arguments_bytes"]
    parameters = 4 * (
        256 * 128
        + 256
        + 4 * 64  # Embedding, softmax's bias, attention's two.
        + 2 * (5 * 128 * 128 + 4 * 128 + 2 * 128 * 256 + 256 + 128)
    )
    assert difference == pytest.approx(2 * parameters, rel=0.05)


# Of a whole chip: TFLOP/s, GB/s to HBM.
PEAKS = {
    "v2:2x2": (46, 700),
    "v3:2x2": (123, 900),
    "v4:2x2x1": (275, 1228),
    "v5e:2x2": (197, 819),
    "v5p:2x2x1": (459, 2765),
    "v6e:2x2": (918, 1640),
}

_PEAKS_OF_CHIPS = """
import json, sys
import tpu_environment
tpu_environment.set_environment()
from tpu_chips import chip_of
from tpu_compiler import topology_devices
peaks = {}
for name in sys.argv[1:]:
    devices = topology_devices(name)
    chips = len({tuple(device.coords) for device in devices})
    share = len(devices) / chips
    chip = chip_of(name)
    peaks[name] = chip.teraflops * share, chip.gigabytes * share
print(json.dumps(peaks))
"""


def test_the_devices_of_a_chip_share_its_peaks():
    """Given topologies whose chips are one device or two to the compiler,
    when what each does at most is added up, then it is the chip's."""
    pytest.importorskip("libtpu")
    result = subprocess.run(
        [sys.executable, "-c", _PEAKS_OF_CHIPS, *PEAKS],
        cwd=TOOLS,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    peaks = json.loads(result.stdout.splitlines()[-1])
    assert {name: tuple(x) for name, x in peaks.items()} == PEAKS


def test_an_error_is_one_line(run_tool):
    pytest.importorskip("libtpu")
    flags = arguments(task__train_data__global_batch_size=12)
    result = run_tool(TOOL, *flags)
    assert result.status == 1
    (line,) = result.stderr.splitlines()
    assert line == (
        "compile_for_tpu.py: error: task.train_data.global_batch_size must be "
        "a multiple of the 8 cores of v3:2x2; got 12. Choose a smaller "
        "--topology, or the lanes of a core with --lanes_per_core=1."
    )
