"""Tests of how a vocabulary is cut into clusters."""

import pytest

from official_lrm.layers import vocabulary_clusters


def clusters(*arguments):
    return [tuple(cluster) for cluster in vocabulary_clusters(*arguments)]


def test_the_docstrings_example():
    assert clusters(60, (10, 30), 2, 24) == [
        (0, 10, 24),
        (10, 30, 12),
        (30, 60, 6),
    ]


def test_without_cutoffs_there_is_one():
    assert clusters(37, (), 4, 19) == [(0, 37, 19)]


def test_widths_are_rounded_down():
    # 23 // 3 and 23 // 9.
    assert [width for _, _, width in clusters(37, (7, 20), 3, 23)] == [23, 7, 2]


def test_a_div_value_of_1_keeps_the_width():
    assert [width for _, _, width in clusters(37, (7, 20), 1, 23)] == [23] * 3


@pytest.mark.parametrize("cutoffs", [(7, 20), [7, 20]], ids=str)
def test_sizes(cutoffs):
    result = vocabulary_clusters(37, cutoffs, 2, 19)
    assert isinstance(result, tuple)
    assert [cluster.size for cluster in result] == [7, 13, 17]


def test_the_smallest_there_are():
    assert clusters(3, (1, 2), 2, 4) == [(0, 1, 4), (1, 2, 2), (2, 3, 1)]
