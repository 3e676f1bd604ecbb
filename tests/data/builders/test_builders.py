"""TFDS's own checks of a builder, on small stand-ins for the files."""

import pytest
import tensorflow_datasets as tfds

from official_lrm.data import builders

ONE_RECORD_EACH = {"train": 1, "validation": 1, "test": 1}


@pytest.mark.usefixtures("example_dir")
class TestEnwik8(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = builders.LrmEnwik8
    SPLITS = ONE_RECORD_EACH


@pytest.mark.usefixtures("example_dir")
class TestText8(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = builders.LrmText8
    SPLITS = ONE_RECORD_EACH


@pytest.mark.usefixtures("example_dir")
class TestWikitext2(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = builders.LrmWikitext2
    SPLITS = ONE_RECORD_EACH


@pytest.mark.usefixtures("example_dir")
class TestWikitext103(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = builders.LrmWikitext103
    SPLITS = ONE_RECORD_EACH


@pytest.mark.usefixtures("example_dir")
class TestBooks(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = builders.LrmBooks
    SPLITS = {"train": 3, "validation": 1, "test": 1}
