"""Tests of tools/generate.py: the same text from every form of a model."""

import pytest

GENERATE = "tools/generate.py"
SETTINGS = ("--prompt=né the ", "--max_new_tokens=41", "--seed=7")


def without_rate(stderr):
    """Standard error without the line that the tool ends with."""
    return [
        line for line in stderr.splitlines() if not line.endswith("tokens/s")
    ]


@pytest.fixture(scope="module")
def from_export(run_tool, exported):
    """What it writes through an export, in a process of its own."""
    return run_tool(GENERATE, f"--model={exported.path}", *SETTINGS)


class TestText:
    def test_through_an_export(self, from_export):
        assert from_export.status == 0
        assert not without_rate(from_export.stderr)
        assert from_export.stderr.endswith(" tokens/s")
        assert from_export.stdout.startswith("né the ")
        assert from_export.stdout.endswith("\n")

    @pytest.mark.parametrize("source", ["preset", "model_dir", "version"])
    def test_every_form_writes_the_same(
        self, call_tool, trained, exported, from_export, source
    ):
        path = {
            "preset": trained.preset,
            "model_dir": trained.path,
            "version": exported.path / "1",
        }[source]
        result = call_tool(GENERATE, f"--model={path}", *SETTINGS)
        assert result.status == 0
        assert result.stdout == from_export.stdout

    @pytest.mark.parametrize("tokens_per_call", [1, 7, 100])
    def test_the_size_of_calls_does_not_matter(
        self, call_tool, exported, from_export, tokens_per_call
    ):
        result = call_tool(
            GENERATE,
            f"--model={exported.path}",
            *SETTINGS,
            f"--tokens_per_call={tokens_per_call}",
        )
        assert result.stdout == from_export.stdout

    def test_settings_matter(self, call_tool, exported, from_export):
        for flag in ("--seed=11", "--temperature=0", "--top_k=1"):
            result = call_tool(
                GENERATE, f"--model={exported.path}", *SETTINGS, flag
            )
            assert result.status == 0
            assert result.stdout != from_export.stdout

    def test_a_prompt_from_a_file(
        self, call_tool, exported, from_export, tmp_path
    ):
        file = tmp_path / "prompt.txt"
        file.write_text("né the ", encoding="utf-8")
        result = call_tool(
            GENERATE,
            f"--model={exported.path}",
            *SETTINGS[1:],
            f"--prompt_file={file}",
        )
        assert result.stdout == from_export.stdout

    def test_a_prompt_that_is_no_utf8(self, call_tool, exported):
        # As a shell passes the byte FF.
        result = call_tool(
            GENERATE,
            f"--model={exported.path}",
            "--prompt=a\udcff",
            "--max_new_tokens=0",
        )
        assert result.status == 0
        assert result.stdout == "a\ufffd\n"

    def test_a_reader_that_has_enough(self, start_tool, finish_tool, trained):
        # As `… | head -c 1`.
        process = start_tool(
            GENERATE, f"--model={trained.preset}", "--max_new_tokens=50000"
        )
        assert process.stdout.read(1)
        process.stdout.close()
        status = process.wait(timeout=600)
        stderr = process.stderr.read()
        process.stderr.close()
        assert status == 0
        assert "Traceback" not in stderr
        assert "Exception ignored" not in stderr


class TestRefusals:
    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (["--prompt="], ("prompt", "at least one byte")),
            (["--prompt_file=/no/such.txt"], ("/no/such.txt",)),
            (["--prompt=a", "--prompt_file=b"], ("--prompt or --prompt_file",)),
            (["--top_p=0"], ("top_p", "0", "above 0 and at most 1")),
            (["--top_p=1.5"], ("top_p", "1.5", "above 0 and at most 1")),
            (["--top_p=nan"], ("top_p", "nan")),
            (["--temperature=-1"], ("--temperature=-1",)),
            (["--temperature=nan"], ("temperature", "nan")),
            (["--temperature=inf"], ("temperature", "inf", "finite")),
            (["--top_k=-1"], ("--top_k=-1",)),
            (["--top_k=99999999999"], ("--top_k=99999999999",)),
            (["--seed=99999999999999999999"], ("--seed=9999",)),
            (["--seed=x"], ("--seed=x",)),
            (["--stop_token=-2"], ("--stop_token=-2",)),
            (["--tokens_per_call=0"], ("--tokens_per_call=0",)),
            (["--max_new_tokens=-1"], ("--max_new_tokens=-1",)),
        ],
        ids=lambda value: value[0] if isinstance(value, list) else "",
    )
    def test_wrong_flags(self, refusal, trained, flags, words):
        line = refusal(GENERATE, f"--model={trained.preset}", *flags)
        for word in words:
            assert word in line

    def test_no_model(self, refusal):
        assert "--model must be given" in refusal(GENERATE)

    def test_a_folder_of_something_else(self, refusal, tmp_path):
        line = refusal(GENERATE, f"--model={tmp_path}")
        assert f"{tmp_path} is neither a model_dir, a preset nor" in line

    def test_a_damaged_preset(self, refusal, run_copy):
        file = run_copy / "preset" / "model.weights.h5"
        file.write_bytes(file.read_bytes()[:1009])
        line = refusal(GENERATE, f"--model={run_copy / 'preset'}")
        assert f"{file} cannot be loaded" in line

    def test_a_truncated_checkpoint(self, refusal, damaged_run):
        line = refusal(GENERATE, f"--model={damaged_run}")
        assert str(damaged_run / "ckpt-4") in line

    def test_a_damaged_export(self, refusal, exported, tmp_path):
        content = (exported.path / "1" / "saved_model.pb").read_bytes()
        (tmp_path / "saved_model.pb").write_bytes(content[:1009])
        line = refusal(GENERATE, f"--model={tmp_path}")
        assert f"SavedModel {tmp_path} cannot be loaded" in line
