"""text8: 10^8 letters and spaces of Wikipedia, character level."""

from official_lrm.data.builders.archive_builder import (
    ArchiveBuilder,
    ExpectedFile,
)
from official_lrm.data.builders.enwik8 import HUTTER_PARTS


class LrmText8(ArchiveBuilder):
    """text8, split in 90, 5 and 5 million bytes; each one document.

    The whole text is one line, so its records are cut after a space, about
    every megabyte.
    """

    DESCRIPTION = (
        "100,000,000 characters of the English Wikipedia dump of 2006-03-03, "
        "reduced to a to z and single spaces, in the usual split."
    )
    HOMEPAGE = "http://mattmahoney.net/dc/textdata.html"
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "text8.zip, or the file text8 that is in it (100,000,000 bytes; also "
        "text8.xz or text8.gz). Without it the archive is downloaded."
    )
    URL = "http://mattmahoney.net/dc/text8.zip"
    FILES = (
        ExpectedFile(
            name="text8",
            parts=HUTTER_PARTS,
            num_bytes=100_000_000,
            algorithm="md5",
            digest="3bea1919949baf155f99411df5fada7e",
        ),
    )
