"""Datasets registered with TensorFlow Datasets, text in order.

    import official_lrm.data.builders  # registers them
    tfds.load("lrm_wikitext2", split="test")

Their names begin with `lrm_`, so that they never stand for a dataset of the
same text that TFDS, or a community, has under its own name.
`official_lrm.data.tfds_corpora` prepares and reads them as corpora.
"""

from official_lrm.data.builders.books import LrmBooks
from official_lrm.data.builders.enwik8 import LrmEnwik8
from official_lrm.data.builders.text8 import LrmText8
from official_lrm.data.builders.wikitext2 import LrmWikitext2
from official_lrm.data.builders.wikitext103 import LrmWikitext103

__all__ = [
    "LrmBooks",
    "LrmEnwik8",
    "LrmText8",
    "LrmWikitext2",
    "LrmWikitext103",
]
