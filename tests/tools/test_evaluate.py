"""Tests of tools/evaluate.py: the table, sweeps, and what it refuses."""

import json
import math

import numpy as np
import pytest

import official_lrm as lrm
from official_lrm.data import WordTokenizer

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
        # The text is words and single spaces; its first byte is only input.
        text = validation[1:].astype("uint8").tobytes()
        words = len(text.split())
        assert float(row["word_ppl"]) == pytest.approx(
            math.exp(nats * len(text) / words), rel=1e-2
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
        assert "protocol: T=13, 3 lane(s), 101 targets (a subset of the " in (
            result.stdout
        )
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

    def test_bytes_and_words_of_just_what_is_scored(
        self, call_tool, trained, tmp_path, validation
    ):
        """Given a cut in the middle of a word, then that is one word."""
        text = validation.astype("uint8").tobytes()
        middle = next(
            end
            for end in range(40, 99)
            if text[end : end + 1].isalpha()
            and text[end + 1 : end + 2].isalpha()
        )
        file = tmp_path / "figures.jsonl"
        call_tool(
            EVALUATE,
            f"--model={trained.path}",
            f"--max_tokens={middle}",
            "--decode_tokens=0",
            f"--output={file}",
        )
        (record,) = map(json.loads, file.read_text().splitlines())
        targets = text[1 : middle + 1]
        assert record["bytes"] == record["tokens"] == len(targets) == middle
        assert record["words"] == len(targets.split())
        assert record["bits_per_byte"] == pytest.approx(
            record["bits_per_character"]
        )
        assert record["word_perplexity"] == pytest.approx(
            math.exp(record["nats"] / len(targets.split()))
        )

    def test_positions(self, call_tool, trained, tmp_path):
        file = tmp_path / "figures.jsonl"
        result = call_tool(
            EVALUATE,
            f"--model={trained.path}",
            "--max_tokens=21",
            "--decode_tokens=0",
            "--positions",
            f"--output={file}",
        )
        (record,) = map(json.loads, file.read_text().splitlines())
        lines = result.stdout.splitlines()
        rows = [line.split() for line in lines[-6:]]
        assert [row[0] for row in rows] == [
            "0",
            "1",
            "2-3",
            "4-7",
            "8-15",
            "16-31",
        ]
        assert [int(row[3]) for row in rows] == [1, 1, 2, 4, 8, 5]
        for row, position in zip(rows, record["positions"], strict=True):
            bits = position["nats"] / position["tokens"] / math.log(2)
            assert float(row[1]) == pytest.approx(bits, abs=1e-4)
        total = sum(position["nats"] for position in record["positions"])
        assert total == pytest.approx(record["nats"])


class TestOutput:
    FLAGS = ("--max_tokens=29", "--decode_tokens=0")

    def test_records_are_complete(self, call_tool, trained, tmp_path):
        file = tmp_path / "figures.jsonl"
        call_tool(
            EVALUATE, f"--model={trained.path}", *self.FLAGS, f"--output={file}"
        )
        call_tool(
            EVALUATE,
            f"--model={trained.preset}",
            *self.FLAGS,
            f"--output={tmp_path / 'preset.jsonl'}",
        )
        (record,) = map(json.loads, file.read_text().splitlines())
        (preset,) = map(
            json.loads, (tmp_path / "preset.jsonl").read_text().splitlines()
        )
        assert set(record) == set(preset)
        assert (record["preset"], record["checkpoint_step"]) == (False, 4)
        assert (preset["preset"], preset["checkpoint_step"]) == (True, None)
        assert record["model"] == str(trained.path)
        assert record["tokenizer"] == "bytes"
        assert record["vocab_size"] == 256
        assert record["version"] == lrm.__version__
        assert record["dtype_policy"] == "float32"
        assert record["split_tokens"] > record["tokens"] == 29
        assert (record["documents"], record["unit"]) == (1, "character")
        # That of the run, in whose folder the preset is.
        assert record["corpus_fingerprint"] == preset["corpus_fingerprint"]
        assert len(record["corpus_fingerprint"]) == 64

    def test_rows_that_are_done_outlive_a_crash(
        self, call_tool, trained, tmp_path, monkeypatch
    ):
        from official_lrm.training import evaluation_report

        whole = evaluation_report._score

        def fails_at_11(model, *arguments):
            if 11 in model.spans.lengths:
                raise OSError("the disk is full")
            return whole(model, *arguments)

        monkeypatch.setattr(evaluation_report, "_score", fails_at_11)
        file = tmp_path / "figures.jsonl"
        result = call_tool(
            EVALUATE,
            f"--model={trained.path}",
            "--long_memory=3,7,11,13",
            *self.FLAGS,
            f"--output={file}",
        )
        assert result.status == 1
        assert "the disk is full" in result.stderr
        lines = file.read_text().splitlines()
        assert [json.loads(line)["spans"][2] for line in lines] == [3, 7]

    def test_a_file_with_figures_is_refused(self, refusal, trained, tmp_path):
        file = tmp_path / "figures.jsonl"
        file.write_text("{}\n")
        line = refusal(EVALUATE, f"--model={trained.path}", f"--output={file}")
        assert f"output {file} holds figures already" in line
        assert file.read_text() == "{}\n"

    def test_a_refused_evaluation_leaves_no_file(
        self, refusal, trained, tmp_path
    ):
        file = tmp_path / "figures.jsonl"
        refusal(
            EVALUATE,
            f"--model={trained.path}",
            f"--output={file}",
            "--lanes=103",
            "--max_tokens=101",
        )
        assert not file.exists()


class TestProtocol:
    def record(self, call_tool, file, *flags):
        result = call_tool(
            EVALUATE,
            *flags,
            "--max_tokens=300",
            "--decode_tokens=0",
            f"--output={file}",
        )
        assert result.status == 0
        (record,) = map(json.loads, file.read_text().splitlines())
        assert f"protocol: {record['protocol']}" in result.stdout
        return record

    def test_dai2019(self, call_tool, trained, tmp_path, validation):
        record = self.record(
            call_tool,
            tmp_path / "figures.jsonl",
            f"--model={trained.path}",
            "--protocol=dai2019",
        )
        assert record["segment_length"] == 128
        assert record["spans"] == [5, 5, 3800]
        assert (record["same_length"], record["clamp_length"]) == (True, 1000)
        assert record["protocol_name"] == "dai2019 but max_tokens=300"
        assert record["protocol"].startswith("dai2019 but max_tokens=300; T=1")
        model = lrm.TransformerXLLanguageModel.from_preset(trained.preset)
        model = model.with_spans(
            (5, 5, 3800), same_length=True, clamp_length=1000
        )
        nats = reference(model, validation[:301], 128)
        assert record["nats"] == pytest.approx(nats, rel=1e-6)

    def test_rae2020(self, call_tool, trained, tmp_path, validation):
        # The split has fewer targets than the 500,000 of the protocol.
        result = call_tool(
            EVALUATE,
            f"--model={trained.path}",
            "--protocol=rae2020",
            "--decode_tokens=0",
        )
        assert result.status == 0
        (row,) = rows_of(result.stdout)
        assert row["targets"] == f"{len(validation) - 1:,}"
        assert "protocol: rae2020; T=384, 1 lane(s)" in result.stdout
        assert "causal mask, no clamp" in result.stdout
        assert "MemorySpans([5, 5, 6000])" in result.stdout

    @pytest.mark.parametrize(
        ("flags", "name", "spans"),
        [
            (["--segment_length=64"], "T=64, ", [5, 5, 3800]),
            (
                ["--nosame_length", "--clamp_length=7"],
                "same_length=False, clamp_length=7, ",
                [5, 5, 3800],
            ),
            (["--spans=1,2,3"], "spans, ", [1, 2, 3]),
            (["--num_long=1", "--long=9", "--short=2"], "spans, ", [2, 2, 9]),
            (["--long_memory=11"], "long_memory=11, ", [5, 5, 11]),
        ],
        ids=str,
    )
    def test_flags_go_first_and_are_named(
        self, call_tool, trained, tmp_path, flags, name, spans
    ):
        record = self.record(
            call_tool,
            tmp_path / "figures.jsonl",
            f"--model={trained.path}",
            "--protocol=dai2019",
            *flags,
        )
        assert record["spans"] == spans
        assert record["protocol_name"] == f"dai2019 but {name}max_tokens=300"


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
            (
                ["--protocol=dai"],
                ("--protocol=dai", "<dai2019|rae2020>"),
            ),
            (["--output=/no/such/a.jsonl"], ("/no/such/a.jsonl",)),
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


def test_a_preset_of_words_alone_needs_a_corpus(refusal, tmp_path):
    """What text its words are of is not known."""
    model = lrm.TransformerXLLanguageModel(3, (5,), 14, 3, 5, 17)
    model.save_to_preset(tmp_path, WordTokenizer(["<eos>", "a", "<unk>"]))
    line = refusal(EVALUATE, f"--model={tmp_path}")
    assert f"{tmp_path} is a preset of words" in line
    assert "give --corpus" in line
