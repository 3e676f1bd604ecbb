"""WikiText-103: 103 million words of Wikipedia."""

from official_lrm.data.builders.archive_builder import (
    ArchiveBuilder,
    ExpectedFile,
)
from official_lrm.data.builders.wikitext2 import WIKITEXT_CITATION


class LrmWikitext103(ArchiveBuilder):
    """WikiText-103 at the level of words, with `<unk>`; a split a document."""

    DESCRIPTION = (
        "Good and featured articles of the English Wikipedia, 103,227,021 / "
        "217,646 / 245,569 words with <eos>."
    )
    HOMEPAGE = "https://wikitext.smerity.com"
    CITATION = WIKITEXT_CITATION
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "wikitext-103-v1.zip, or those of the files wiki.train.tokens, "
        "wiki.valid.tokens and wiki.test.tokens that you have, also in a "
        "folder wikitext-103, as wikitext-103.train.tokens or as .xz or .gz. "
        "Without any the archive is downloaded."
    )
    URL = "https://wikitext.smerity.com/wikitext-103-v1.zip"
    FILES = (
        ExpectedFile(
            name="wiki.train.tokens",
            aliases=(
                "wikitext-103.train.tokens",
                "wikitext-103/wiki.train.tokens",
            ),
            parts={"train": (0, None)},
            num_bytes=539_209_157,
            algorithm="sha1",
            digest="b7497e2dfe77e72cfef5e3dbc61b7b53712ac211",
        ),
        ExpectedFile(
            name="wiki.valid.tokens",
            aliases=(
                "wikitext-103.valid.tokens",
                "wikitext-103/wiki.valid.tokens",
            ),
            parts={"validation": (0, None)},
            num_bytes=1_142_309,
            algorithm="sha1",
            digest="c326ac59dc587676d58c422eb8a03e119582f92b",
        ),
        ExpectedFile(
            name="wiki.test.tokens",
            aliases=(
                "wikitext-103.test.tokens",
                "wikitext-103/wiki.test.tokens",
            ),
            parts={"test": (0, None)},
            num_bytes=1_281_077,
            algorithm="sha1",
            digest="8a5befc548865cec54ed4273cf87dbbad60d1e47",
        ),
    )
