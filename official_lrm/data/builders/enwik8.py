"""enwik8: the first 10^8 bytes of Wikipedia, byte level."""

from official_lrm.data.builders.archive_builder import (
    ArchiveBuilder,
    ExpectedFile,
)

# Every published figure is on these parts.
HUTTER_PARTS = {
    "train": (0, 90_000_000),
    "validation": (90_000_000, 95_000_000),
    "test": (95_000_000, 100_000_000),
}


class LrmEnwik8(ArchiveBuilder):
    """enwik8, split in 90, 5 and 5 million bytes; each one document."""

    DESCRIPTION = (
        "The first 100,000,000 bytes of the English Wikipedia dump of "
        "2006-03-03, markup included, in the usual split."
    )
    HOMEPAGE = "http://mattmahoney.net/dc/textdata.html"
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "enwik8.zip, or the file enwik8 that is in it (100,000,000 bytes; "
        "also enwik8.xz or enwik8.gz). Without it the archive is downloaded."
    )
    URL = "http://mattmahoney.net/dc/enwik8.zip"
    FILES = (
        ExpectedFile(
            name="enwik8",
            parts=HUTTER_PARTS,
            num_bytes=100_000_000,
            algorithm="md5",
            digest="a1fa5ffddb56f4953e226637dabbb36a",
        ),
    )
