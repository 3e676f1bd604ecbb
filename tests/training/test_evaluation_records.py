"""JSON lines that survive a crash and are valid whatever the figures."""

import json
import math

import pytest

import official_lrm as lrm
from official_lrm.training import EvaluationResult, ScoredText
from official_lrm.training.evaluation_records import RecordFile, record_of


def result_of(nats=34.5, unit="word"):
    return EvaluationResult(
        nats=nats,
        tokens=3,
        segment_length=7,
        lanes=1,
        spans=(5, 0),
        same_length=True,
        seconds=0.5,
        is_long=(True, False),
        clamp_length=11,
        position_nats=(nats,),
        position_tokens=(3,),
        text=ScoredText(unit, "test", 13, 2, 3, 17, 2),
        protocol_name="dai2019 but T=7",
    )


def test_a_record_is_complete():
    record = record_of(result_of(), model="runs/a", corpus="text")
    assert json.loads(json.dumps(record)) == {
        "model": "runs/a",
        "corpus": "text",
        "version": lrm.__version__,
        "split": "test",
        "split_tokens": 13,
        "documents": 2,
        "unit": "word",
        "nats": 34.5,
        "tokens": 3,
        "segment_length": 7,
        "lanes": 1,
        "spans": [5, 0],
        "same_length": True,
        "seconds": 0.5,
        "is_long": [True, False],
        "clamp_length": 11,
        "attend_to_empty": False,
        "dtype": "float32",
        "memory_dtype": None,
        "protocol_name": "dai2019 but T=7",
        "memory": "cold at the start of each lane and document",
        "bytes": 17,
        "words": 2,
        "nats_per_token": 11.5,
        "bits_per_token": 11.5 / math.log(2),
        "bits_per_character": None,
        "bits_per_byte": 34.5 / math.log(2) / 17,
        "perplexity": math.exp(11.5),
        "word_perplexity": math.exp(34.5 / 2),
        "positions": [
            {
                "first": 0,
                "last": 0,
                "tokens": 3,
                "nats": 34.5,
                "nats_per_token": 11.5,
                "perplexity": math.exp(11.5),
            }
        ],
        "protocol": result_of().protocol,
    }
    characters = record_of(result_of(unit="character"))
    assert characters["bits_per_character"] == characters["bits_per_token"]


def test_each_line_is_there_when_it_is_written(tmp_path):
    path = tmp_path / "figures.jsonl"
    records = RecordFile(path)
    for count in (1, 2, 3):
        records.append({"row": count})
        lines = path.read_text().splitlines()
        assert [json.loads(line)["row"] for line in lines] == [
            *range(1, count + 1)
        ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_has_not_becomes_null(tmp_path, value):
    path = tmp_path / "figures.jsonl"
    RecordFile(path).append(
        record_of(result_of(nats=value), deep=[{"a": value}])
    )

    def refuse(name):
        raise AssertionError(name)

    record = json.loads(path.read_text(), parse_constant=refuse)
    assert record["nats"] is None
    assert record["positions"][0]["nats"] is None
    assert record["deep"] == [{"a": None}]
    assert record["tokens"] == 3


def test_a_file_that_holds_something_is_left_as_it_is(tmp_path):
    path = tmp_path / "figures.jsonl"
    path.write_text("{}\n")
    with pytest.raises(FileExistsError, match="figures.jsonl holds figures"):
        RecordFile(path)
    assert path.read_text() == "{}\n"


def test_an_empty_file_is_written_to(tmp_path):
    path = tmp_path / "figures.jsonl"
    RecordFile(path)
    RecordFile(path).append({"a": 1})
    assert path.read_text() == '{"a": 1}\n'


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        RecordFile(tmp_path / "no" / "figures.jsonl")
