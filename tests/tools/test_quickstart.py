"""Tests of tools/quickstart.py: the four steps, and going on with them."""

import os
import re

import pytest

QUICKSTART = "tools/quickstart.py"


@pytest.mark.slow  # About a minute: the real model, a few steps.
def test_quickstart(run_tool, tmp_path):
    # Given a quickstart of a few steps,
    run = tmp_path / "run"
    flags = (f"--run_dir={run}", "--characters=53", "--max_tokens=2003")
    first = run_tool(QUICKSTART, *flags, "--steps=25")
    # then it has trained, evaluated, exported and written,
    assert first.status == 0, first.stderr
    assert "Traceback" not in first.stderr
    for step in range(1, 5):
        assert f"[{step}/4]" in first.stdout
    assert f"trained model: {run}" in first.stdout or (
        os.path.isdir(run / "preset")
    )
    assert os.path.isfile(run / "export" / "1" / "saved_model.pb")
    written = first.stdout.split("[4/4]")[1].split("\n", 1)[1]
    assert written.startswith("def ")
    assert re.search(r"^validation\s+\d\.\d+ bpc over 2,003", written, re.M)
    assert re.search(r"^training\s+[\d,]+ characters/s$", written, re.M)
    assert re.search(r"^generation\s+[\d,]+ characters/s$", written, re.M)
    bits = float(re.search(r"([\d.]+) bpc over", written)[1])
    assert 2 < bits < 7
    # and when it is run again, it goes on with what there is.
    second = run_tool(QUICKSTART, *flags, "--steps=50")
    assert second.status == 0, second.stderr
    assert "training until step 50" in second.stdout
    assert os.path.isfile(run / "export" / "2" / "saved_model.pb")


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--steps=0"], "--steps=0"),
        (["--characters=0"], "--characters=0"),
        (["--steps=many"], "--steps=many"),
    ],
    ids=str,
)
def test_wrong_flags(refusal, flags, word):
    assert word in refusal(QUICKSTART, *flags)
