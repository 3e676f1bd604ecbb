"""Tests of tools/evaluate.py: the table, sweeps, and what it refuses."""

import json
import math

import numpy as np
import pytest

import official_lrm as lrm

EVALUATE = "tools/evaluate.py"


def rows_of(stdout):
    """The rows of the printed table, as dicts of its heads."""
    lines = stdout.splitlines()
    (start,) = [
        i for i, line in enumerate(lines) if line.split()[:1] == ["long"]
    ]
    heads, rows = lines[start].split(), []
    for line in lines[start + 1 :]:
        cells = line.replace(" MiB", "").replace(" s", "").split()
        if len(cells) != len(heads):
            break
        rows.append(dict(zip(heads, cells, strict=True)))
    assert rows
    return rows


def reference(model, tokens, length):
    """Nats of all targets of one lane in segments."""
    memories, nats = None, 0.0
    for start in range(0, len(tokens) - 1, length):
        segment = tokens[start : start + length + 1]
        log_probs, memories = model.score(
            segment[None, :-1], segment[None, 1:], memories
        )
        nats -= np.sum(np.array(log_probs, "float64"))
    return nats


@pytest.fixture
def validation(text_file):
    """The tokens of the validation split."""
    text = text_file.read_bytes()
    first, second = len(text) * 90 // 100, len(text) * 95 // 100
    return np.frombuffer(text[first:second], "uint8").astype("int32")


class TestTable:
    def test_a_model_dir_by_itself(self, run_tool, trained, validation):
        result = run_tool(
            EVALUATE, f"--model={trained.path}", "--decode_tokens=29"
        )
        assert result.status == 0
        assert "Traceback" not in result.stderr
        # All targets of the validation split, as in a plain loop.
        (row,) = rows_of(result.stdout)
        model = lrm.TransformerXLLanguageModel.from_preset(trained.preset)
        nats = reference(model, validation, 7) / (len(validation) - 1)
        assert float(row["nats"]) == pytest.approx(nats, abs=1e-4)
        assert float(row["bpc"]) == pytest.approx(nats / math.log(2), abs=1e-4)
        assert float(row["perplexity"]) == pytest.approx(
            math.exp(nats), rel=1e-4
        )
        assert row["targets"] == f"{len(validation) - 1:,}"
        assert row["long"] == "23"
        # The protocol, and decoding beside it.
        assert "protocol: T=7, 1 lane(s), " in result.stdout
        assert "memory cold at the start" in result.stdout
        assert "MemorySpans([5, 5, 23])" in result.stdout
        at_one = reference(model, validation[:30], 1) / 29 / math.log(2)
        last = result.stdout.splitlines()[-1]
        assert "first 29 targets" in last
        assert f"T=1 {at_one:.4f} bpc" in last

    def test_a_preset_and_a_model_dir_agree(
        self, call_tool, trained, text_file
    ):
        flags = ("--max_tokens=101", "--decode_tokens=0", "--segment_length=5")
        run = call_tool(EVALUATE, f"--model={trained.path}", *flags)
        preset = call_tool(
            EVALUATE,
            f"--model={trained.preset}",
            "--corpus=text",
            f"--input_path={text_file}",
            *flags,
        )
        assert (run.status, preset.status) == (0, 0)
        assert (
            rows_of(run.stdout)[0]["nats"]
            == (rows_of(preset.stdout)[0]["nats"])
        )

    def test_max_tokens_and_lanes(self, call_tool, trained, tmp_path):
        file = tmp_path / "figures.jsonl"
        result = call_tool(
            EVALUATE,
            f"--model={trained.path}",
            "--max_tokens=101",
            "--lanes=3",
            "--segment_length=13",
            "--decode_tokens=0",
            f"--output={file}",
        )
        assert result.status == 0
        assert rows_of(result.stdout)[0]["targets"] == "101"
        assert "protocol: T=13, 3 lane(s), 101 targets" in result.stdout
        assert "T=1 " not in result.stdout
        (record,) = map(json.loads, file.read_text().splitlines())
        assert record["tokens"] == 101
        assert record["lanes"] == 3
        assert record["segment_length"] == 13

    @pytest.mark.parametrize("split", ["train", "test", "all"])
    def test_splits(self, call_tool, trained, text_file, split):
        size = len(text_file.read_bytes())
        first, second = size * 90 // 100, size * 95 // 100
        expected = {"train": first, "test": size - second, "all": size}[split]
        result = call_tool(
            EVALUATE,
            f"--model={trained.path}",
            f"--split={split}",
            "--segment_length=1009",
            "--decode_tokens=0",
        )
        assert rows_of(result.stdout)[0]["targets"] == f"{expected - 1:,}"


class TestSpans:
    def figures(self, call_tool, file, *flags):
        result = call_tool(
            EVALUATE,
            *flags,
            "--max_tokens=101",
            "--decode_tokens=0",
            f"--output={file}",
        )
        assert result.status == 0
        return result, [json.loads(line) for line in file.open()]

    def test_a_sweep_marks_the_best(
        self, call_tool, trained, tmp_path, validation
    ):
        file = tmp_path / "figures.jsonl"
        result, records = self.figures(
            call_tool, file, f"--model={trained.path}", "--long_memory=0,11,29"
        )
        rows = rows_of(result.stdout)
        assert [row["long"] for row in rows] == ["0", "11", "29"]
        assert [record["spans"] for record in records] == [
            [5, 5, 0],
            [5, 5, 11],
            [5, 5, 29],
        ]
        model = lrm.TransformerXLLanguageModel.from_preset(trained.preset)
        for record in records:
            nats = reference(
                model.with_spans(record["spans"]), validation[:102], 7
            )
            assert record["nats"] == pytest.approx(nats, rel=1e-5)
            assert record["nats_per_token"] == record["nats"] / 101
            assert record["corpus"] == "text"
            assert record["split"] == "validation"
            assert f"MemorySpans({record['spans']})" in record["protocol"]
        assert len({record["nats"] for record in records}) == 3
        best = min(range(3), key=lambda i: records[i]["nats"])
        stars = [row["bpc"].endswith("*") for row in rows]
        assert stars == [i == best for i in range(3)]
        assert f"protocol: {records[best]['protocol']}" in result.stdout

    @pytest.mark.parametrize(
        ("flags", "spans"),
        [
            (["--spans=0,13,2"], [0, 13, 2]),
            (["--spans=0,0,0"], [0, 0, 0]),
            (
                ["--num_long=1", "--placement=first", "--long=19", "--short=3"],
                [19, 3, 3],
            ),
            (["--num_long=3", "--long=17"], [17, 17, 17]),
            (["--num_long=0", "--short=2"], [2, 2, 2]),
        ],
        ids=str,
    )
    def test_any_spans(self, call_tool, trained, tmp_path, flags, spans):
        file = tmp_path / "figures.jsonl"
        _, (record,) = self.figures(
            call_tool, file, f"--model={trained.preset}", *flags
        )
        assert record["spans"] == spans

    def test_overrides(self, call_tool, trained, tmp_path, validation):
        file = tmp_path / "figures.jsonl"
        result, (record,) = self.figures(
            call_tool,
            file,
            f"--model={trained.path}",
            "--same_length",
            "--clamp_length=3",
        )
        assert record["same_length"] is True
        assert "same-length mask" in result.stdout
        model = lrm.TransformerXLLanguageModel.from_preset(trained.preset)
        other = model.with_spans(model.spans, same_length=True, clamp_length=3)
        nats = reference(other, validation[:102], 7)
        assert record["nats"] == pytest.approx(nats, rel=1e-6)


class TestRefusals:
    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (["--spans=5,7"], ("3 layers", "[5, 7]")),
            (["--spans=5,7,x"], ("--spans", "'5,7,x'", "integers")),
            (["--spans=5,7,-11"], ("-11", "not be negative")),
            (
                ["--spans=5,7,11", "--num_long=1"],
                ("--spans or --num_long", "not both"),
            ),
            (["--num_long=4"], ("num_long", "got 4", "from 0 to")),
            (
                ["--num_long=1", "--placement=top"],
                ("placement", "'top'", "interleaved, first, last, middle"),
            ),
            (["--placement=first"], ("--placement", "--num_long")),
            (["--long_memory=5,x"], ("--long_memory", "'5,x'")),
            (["--long_memory=5,-7"], ("-7", "not be negative")),
            (["--spans=5,5,5", "--long_memory=7"], ("long_memory", "none")),
            (["--lanes=0"], ("lanes", "0")),
            (["--segment_length=0"], ("segment_length", "0")),
            (["--max_tokens=0"], ("max_tokens", "0")),
            (["--decode_tokens=-1"], ("decode_tokens", "-1")),
            (["--lanes=103", "--max_tokens=101"], ("lanes", "101", "103")),
            (["--clamp_length=0"], ("clamp_length", "0")),
            (["--corpus=enwik9"], ("'enwik9'", "python_stdlib, text")),
            (["--corpus=text"], ("corpus 'text' needs a path",)),
            (["--input_path=/no/such.txt"], ("'/no/such.txt' does not",)),
            (["--split=half"], ("--split=half", "validation")),
        ],
        ids=lambda value: value[0] if isinstance(value, list) else "",
    )
    def test_wrong_flags(self, refusal, trained, flags, words):
        line = refusal(EVALUATE, f"--model={trained.path}", *flags)
        for word in words:
            assert word in line

    def test_no_model(self, refusal):
        assert "--model must be given" in refusal(EVALUATE)

    def test_a_folder_of_something_else(self, refusal, tmp_path):
        line = refusal(EVALUATE, f"--model={tmp_path}")
        assert f"{tmp_path} is neither a model_dir" in line

    def test_a_truncated_checkpoint(self, refusal, damaged_run):
        line = refusal(EVALUATE, f"--model={damaged_run}")
        assert str(damaged_run / "ckpt-4") in line

    def test_a_damaged_preset(self, refusal, run_copy):
        config = run_copy / "preset" / "config.json"
        config.write_text(config.read_text()[:101])
        line = refusal(EVALUATE, f"--model={run_copy / 'preset'}")
        assert f"{config} is no preset's config" in line

    def test_damaged_params(self, refusal, run_copy):
        params = run_copy / "params.yaml"
        params.write_text(params.read_text()[:101] + "\n{")
        line = refusal(EVALUATE, f"--model={run_copy}")
        assert str(params) in line

    def test_bytes_outside_the_vocabulary(self, refusal, tmp_path, text_file):
        from official_lrm.data import ByteTokenizer

        model = lrm.TransformerXLLanguageModel(101, (5,), 14, 3, 5, 17)
        model.save_to_preset(tmp_path, ByteTokenizer(101))
        line = refusal(
            EVALUATE,
            f"--model={tmp_path}",
            "--corpus=text",
            f"--input_path={text_file}",
        )
        assert "allowed are 0 to 100" in line
