"""Tests of what all tools do alike: help, unknown flags, odd arguments."""

import ast
import pathlib

import pytest

from official_lrm import command_line

ROOT = pathlib.Path(__file__).resolve().parents[2]

TOOLS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("tools", "export")
    for path in (ROOT / folder).glob("*.py")
    if "command_line.run(" in path.read_text(encoding="utf-8")
)


def tree(tool):
    return ast.parse((ROOT / tool).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def helps(start_tool, finish_tool):
    """The --help of every tool, run at once."""
    processes = {tool: start_tool(tool, "--help") for tool in TOOLS}
    return {tool: finish_tool(each) for tool, each in processes.items()}


def test_there_are_the_tools_that_are_tested():
    assert {
        "tools/train.py",
        "tools/convert_checkpoint.py",
        "tools/evaluate.py",
        "tools/generate.py",
        "tools/benchmark.py",
        "tools/show_spans.py",
        "tools/quickstart.py",
        "export/export_saved_model.py",
    } <= set(TOOLS)


@pytest.mark.parametrize("tool", TOOLS)
def test_help_shows_usage_and_flags(helps, tool):
    result = helps[tool]
    assert result.status in (0, 1)  # absl's own choice.
    assert "Traceback" not in result.stderr
    for line in ast.get_docstring(tree(tool)).splitlines():
        assert line.strip() in result.stdout
    defined = [
        call.args[0].value
        for call in ast.walk(tree(tool))
        if isinstance(call, ast.Call)
        and getattr(call.func, "attr", "").startswith("DEFINE_")
        and isinstance(call.args[0], ast.Constant)
    ]
    assert defined
    for name in defined:
        assert f"{name}:" in result.stdout


@pytest.mark.parametrize("tool", TOOLS)
def test_a_positional_argument_is_refused(refusal, tool):
    line = refusal(tool, "runs/first")
    assert "flags only" in line
    assert "runs/first" in line


@pytest.mark.parametrize("tool", TOOLS)
def test_an_unknown_flag_is_refused(refusal, tool):
    line = refusal(tool, "--modle=runs/first")
    assert "modle" in line


def test_an_unknown_flag_in_a_process(run_tool):
    result = run_tool("tools/evaluate.py", "--modle=runs/first")
    assert result.status == 1
    assert not result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith("evaluate.py: error: ")
    assert "'modle'" in line


class TestOneLine:
    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (ValueError("two\n  lines"), "two lines"),
            (KeyError("no such name"), "no such name"),
            (ValueError(), "ValueError"),
            (
                ValueError("x\n  In call to configurable 'Trainer' (<class>)"),
                "x",
            ),
            (FileNotFoundError(2, "No such file", "a"), None),
        ],
        ids=repr,
    )
    def test_messages(self, error, expected):
        line = command_line.one_line(error)
        assert line == (expected or str(error))
        assert "\n" not in line


class TestIntegers:
    def test_they_are_read(self):
        read = command_line.parse_integers("spans", "128,0, 2304")
        assert read == [128, 0, 2304]

    @pytest.mark.parametrize("text", ["", "5,", "5;7", "5.0", "x", "[5]"])
    def test_others_are_refused(self, text):
        message = "^--spans must be integers separated by commas; got "
        with pytest.raises(ValueError, match=message):
            command_line.parse_integers("spans", text)
