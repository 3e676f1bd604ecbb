"""Streams of text: a file or an archive's member, whole or in part."""

import dataclasses
import gzip
import lzma
import pathlib
import zipfile
import zlib

_OPENERS = {".xz": lzma.open, ".gz": gzip.open}
_BLOCK_BYTES = 2**18
# A record is cut at the last line end between these two, where there is one.
_SMALL_BYTES = 2**16
_RECORD_BYTES = 2**18
_LONGEST_BYTES = 2**20
_WHITE_SPACE = b" \t\n\r\v\f"


@dataclasses.dataclass(frozen=True)
class TextSource:
    """Where a text lies.

    Attributes:
        path: pathlib.Path of a file; `.xz` and `.gz` are decompressed.
        member: str, name of the member that is the text where the file is a
            zip archive, None otherwise.
        start: int, offset of the first byte of the text in the decompressed
            file.
        stop: int, offset after the last byte, None for the end of the file.
        newlines: bool, whether CR LF becomes LF.
    """

    path: pathlib.Path
    member: str | None = None
    start: int = 0
    stop: int | None = None
    newlines: bool = False

    def blocks(self):
        """Yields the text as bytes of at most 256 KiB.

        Raises:
            FileNotFoundError: the file is missing.
            PermissionError: the file cannot be read.
            ValueError: the archive is corrupt, truncated or none.
        """
        blocks = self._slice()
        return _lf_line_ends(blocks) if self.newlines else blocks

    def lines(self):
        """Yields the lines of the whole file, each with its LF.

        Raises:
            As `blocks`.
        """
        rest = b""
        for block in dataclasses.replace(self, start=0, stop=None)._slice():
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                yield line + b"\n"
        if rest:
            yield rest

    def _slice(self):
        offset = 0
        for block in self._read():
            first = max(self.start - offset, 0)
            last = len(block)
            if self.stop is not None:
                last = min(last, self.stop - offset)
            if first < last:
                yield block[first:last]
            offset += len(block)
            if self.stop is not None and offset >= self.stop:
                return

    def _read(self):
        """Yields the blocks of the whole file, with errors of one line."""
        try:
            if self.member is not None:
                with (
                    zipfile.ZipFile(self.path) as archive,
                    archive.open(self.member) as file,
                ):
                    yield from iter(lambda: file.read(_BLOCK_BYTES), b"")
            else:
                opener = _OPENERS.get(self.path.suffix.lower(), open)
                with opener(self.path, "rb") as file:
                    yield from iter(lambda: file.read(_BLOCK_BYTES), b"")
        except FileNotFoundError as error:
            raise FileNotFoundError(f"'{self.path}' does not exist") from error
        except PermissionError as error:
            raise PermissionError(f"'{self.path}' is not readable") from error
        except (
            EOFError,
            KeyError,
            gzip.BadGzipFile,
            lzma.LZMAError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise ValueError(
                f"'{self.path}' is truncated, corrupt or not such an archive: "
                f"{error}"
            ) from error


def cut_records(blocks):
    r"""Yields a text in records that end where a line does.

    A record ends after the last line end between 64 and 256 KiB, or after the
    next one up to 1 MiB. A line longer than that, such as all of text8, is
    cut after its last white space within 1 MiB, and where it has none at
    1 MiB, not inside a character of UTF-8: records stay bounded, and a word is
    cut only if it is that long.
    The records joined are the text.

        before: b"one\ntwo", b"\nthree"
        after:  b"one\ntwo\nthree"

    Args:
        blocks: iterable of bytes.
    """
    buffer = bytearray()
    for block in blocks:
        buffer += block
        while len(buffer) > _LONGEST_BYTES:
            stop = _last_line_end(buffer) or _last_white_space(buffer)
            stop = stop or _character_start(buffer, _LONGEST_BYTES)
            yield bytes(buffer[:stop])
            del buffer[:stop]
    while buffer:
        stop = len(buffer)
        if stop > _RECORD_BYTES:
            stop = _last_line_end(buffer) or stop
        yield bytes(buffer[:stop])
        del buffer[:stop]


def count_words_and_lines(blocks):
    """Counts words as ASCII white space separates them, and line ends.

    The sum is the number of tokens of a word-level corpus where each line
    ends in `<eos>`.

    Args:
        blocks: iterable of bytes.

    Returns:
        int.
    """
    return sum(
        len(record.split()) + record.count(b"\n")
        for record in cut_records(blocks)
    )


def _last_line_end(buffer):
    """Returns where a record ends by its lines, 0 if by none."""
    return (
        buffer.rfind(b"\n", _SMALL_BYTES, _RECORD_BYTES) + 1
        or buffer.find(b"\n", _RECORD_BYTES, _LONGEST_BYTES) + 1
        or buffer.rfind(b"\n", 0, _SMALL_BYTES) + 1
    )


def _last_white_space(buffer):
    return 1 + max(
        buffer.rfind(bytes([byte]), 0, _LONGEST_BYTES) for byte in _WHITE_SPACE
    )


def _character_start(buffer, stop):
    """Returns `stop`, or where the UTF-8 character that it cuts begins."""
    for start in range(stop, stop - 4, -1):
        if buffer[start] & 0xC0 != 0x80:
            return start
    return stop  # It is not UTF-8.


def _lf_line_ends(blocks):
    """Yields blocks with LF for CR LF, also where a block ends between."""
    held = b""
    for block in blocks:
        block = held + block
        held = b"\r" if block.endswith(b"\r") else b""
        block = block[: len(block) - len(held)].replace(b"\r\n", b"\n")
        if block:
            yield block
    if held:
        yield held
