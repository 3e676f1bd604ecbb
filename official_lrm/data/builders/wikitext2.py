"""WikiText-2: two million words of Wikipedia."""

from official_lrm.data.builders.archive_builder import (
    ArchiveBuilder,
    ExpectedFile,
)

WIKITEXT_CITATION = """\
@misc{merity2016pointer,
  title={Pointer Sentinel Mixture Models},
  author={Stephen Merity and Caiming Xiong and James Bradbury and
          Richard Socher},
  year={2016},
  eprint={1609.07843},
  archivePrefix={arXiv},
  primaryClass={cs.CL}
}"""


class LrmWikitext2(ArchiveBuilder):
    """WikiText-2 at the level of words, with `<unk>`; a split a document."""

    DESCRIPTION = (
        "Good and featured articles of the English Wikipedia, 2,088,628 / "
        "217,646 / 245,569 words with <eos>."
    )
    HOMEPAGE = "https://wikitext.smerity.com"
    CITATION = WIKITEXT_CITATION
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "wikitext-2-v1.zip, or those of the files wiki.train.tokens, "
        "wiki.valid.tokens and wiki.test.tokens that you have, also in a "
        "folder wikitext-2, as wikitext-2.train.tokens or as .xz or .gz. "
        "Without any the archive is downloaded."
    )
    # The bucket of the paper's authors has refused all access since 2024;
    # this is the same archive.
    URL = "https://wikitext.smerity.com/wikitext-2-v1.zip"
    FILES = (
        ExpectedFile(
            name="wiki.train.tokens",
            aliases=("wikitext-2.train.tokens", "wikitext-2/wiki.train.tokens"),
            parts={"train": (0, None)},
            num_bytes=10_797_148,
            algorithm="sha1",
            digest="863f29c46ef9d167fff4940ec821195882fe29d1",
            num_tokens=2_088_628,
        ),
        ExpectedFile(
            name="wiki.valid.tokens",
            aliases=("wikitext-2.valid.tokens", "wikitext-2/wiki.valid.tokens"),
            parts={"validation": (0, None)},
            num_bytes=1_121_681,
            algorithm="sha1",
            digest="0418625c8b4da6e4b5c7a0b9e78d4ae8f7ee5422",
        ),
        ExpectedFile(
            name="wiki.test.tokens",
            aliases=("wikitext-2.test.tokens", "wikitext-2/wiki.test.tokens"),
            parts={"test": (0, None)},
            num_bytes=1_256_449,
            algorithm="sha1",
            digest="c7b8ce0aa086fb34dab808c5c49224211eb2b172",
        ),
    )
