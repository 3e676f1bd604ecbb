"""The columns of each unit, and the mark of the best."""

import dataclasses
import math

import pytest

from official_lrm.training import EvaluationResult, ScoredText
from official_lrm.training.evaluation_table import print_positions, print_table


def result_of(unit, bits=3.0, split="validation", spans=(2, 5)):
    return EvaluationResult(
        nats=math.log(2) * bits * 20,
        tokens=20,
        segment_length=7,
        lanes=2,
        spans=spans,
        same_length=False,
        seconds=4.4,
        position_nats=(math.log(2), 0.0, math.log(2) * 4),
        position_tokens=(1, 0, 2),
        text=ScoredText(unit, split, 20, 1, 20, 24, 5),
    )


def table(capsys, *arguments):
    print_table(*arguments)
    return [line.split() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("unit", "figures"),
    [
        (
            "character",
            {"bpc": "3.0000", "nats": "2.0794", "word_ppl": "4096.000"},
        ),
        ("word", {"perplexity": "8.000", "nats": "2.0794", "bpb": "2.5000"}),
        (
            "piece",
            {
                "perplexity": "8.000",
                "nats": "2.0794",
                "bpb": "2.5000",
                "word_ppl": "4096.000",
            },
        ),
    ],
)
def test_columns_of_each_unit(capsys, unit, figures):
    heads, row = table(capsys, [result_of(unit)], 1024)
    assert heads == ["long", *figures, "targets", "state", "time"]
    # 7 positions of 1,024 float32 in each of 2 lanes.
    cells = ["5", *figures.values(), "20", "0.05", "MiB", "4", "s"]
    assert row == cells


def test_the_best_of_several_is_marked(capsys):
    results = [result_of("word", bits) for bits in (3.0, 1.0, math.nan)]
    lines = table(capsys, results, 8, [0, 7, 9])
    assert [line[0] for line in lines] == ["long", "0", "7", "9", "*"]
    assert [line[1] for line in lines[1:4]] == ["8.000", "2.000*", "nan"]
    assert lines[4] == ["*", "the", "best"]


def test_a_choice_on_the_test_split_is_told(capsys):
    print_table([result_of("word", split="test")] * 2, 8, [0, 7])
    assert "to be chosen on validation" in capsys.readouterr().out


def test_what_was_not_counted_and_what_is_huge(capsys):
    result = result_of("piece", bits=9.0)
    _, row = table(capsys, [result], 8)
    assert row[4] == "6.87e+10"
    text = dataclasses.replace(result.text, num_tokens=None)
    _, row = table(capsys, [dataclasses.replace(result, text=text)], 8)
    assert row[3:5] == ["-", "-"]


@pytest.mark.parametrize(
    ("unit", "head", "cells"),
    [
        ("character", "bpc", ["1.0000", "2.0000"]),
        ("word", "perplexity", ["2.000", "4.000"]),
    ],
)
def test_positions(capsys, unit, head, cells):
    print_positions(result_of(unit))
    _, *lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines]
    assert rows[0] == ["position", head, "nats", "targets"]
    assert rows[1] == ["0", cells[0], "0.6931", "1"]
    assert rows[2] == ["2-3", cells[1], "1.3863", "2"]
    assert len(rows) == 3
