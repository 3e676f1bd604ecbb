"""Reads text files, plain or compressed, named by path, glob or list."""

import glob
import gzip
import lzma
import os
import zlib

_OPENERS = {".xz": lzma.open, ".gz": gzip.open}
_EXPECTED = "a file, a glob, a comma-separated list of these, or a list"


def read_text_files(path):
    """Returns the names and the joined bytes of the files that `path` names.

        before: "a/*.txt,b.xz"  with a/2.txt, a/10.txt and b.xz on disk
        after:  ["a/10.txt", "a/2.txt", "b.xz"], their contents joined

    The files of one glob come in sorted order, the items of a list in the
    order given. Nothing is put between two files. `.xz` and `.gz` files are
    decompressed. A name with a comma or a wildcard in it that exists as a
    file is that file. Empty files that a glob finds are passed over.

    Args:
        path: str or os.PathLike, or a list or tuple of them.

    Returns:
        `(names, text)`: list of str, and bytes that are not empty.

    Raises:
        FileNotFoundError: a file is missing or a glob matches no file.
        PermissionError: a file cannot be read.
        ValueError: `path` names nothing, names a directory, an empty file or
            the same file twice, or an archive is corrupt or truncated.
    """
    names, contents, seen = [], [], set()
    for item in _items(path):
        for name in _expand(item):
            # Text that occurs twice would sit in two splits at once.
            if os.path.realpath(name) in seen:
                raise ValueError(
                    f"path names {name!r} twice; allowed is each file once"
                )
            seen.add(os.path.realpath(name))
            names.append(name)
            contents.append(_read(name))
            if not contents[-1] and name == item:
                raise ValueError(f"path {name!r} is an empty file")
    text = b"".join(contents)
    if not text:
        raise ValueError(f"path {path!r} matches only empty files")
    return names, text


def _items(path):
    """Returns the files and globs that `path` consists of, as str."""
    if isinstance(path, (str, os.PathLike)):
        items = [os.fspath(path)]
        if isinstance(path, str) and not os.path.exists(path):
            items = [item.strip() for item in path.split(",")]
    elif isinstance(path, (list, tuple)):
        items = [
            os.fspath(item) if isinstance(item, os.PathLike) else item
            for item in path
        ]
    else:
        items = []
    if not items or not all(isinstance(i, str) and i for i in items):
        raise ValueError(f"path must be {_EXPECTED}, got {path!r}")
    return items


def _expand(item):
    """Returns the files that one item of `path` stands for."""
    if os.path.isdir(item):
        raise ValueError(
            f"path {item!r} is a directory; give a glob such as "
            f"{os.path.join(item, '*.txt')!r}"
        )
    if os.path.exists(item):
        return [item]
    if not glob.has_magic(item):
        raise FileNotFoundError(f"path {item!r} does not exist")
    # The order of a directory listing differs between file systems.
    found = sorted(glob.glob(item, recursive=True))
    files = [name for name in found if not os.path.isdir(name)]
    if not files:
        raise FileNotFoundError(f"path {item!r} matches no file")
    return files


def _read(name):
    """Returns the bytes of one file, decompressed by its extension."""
    opener = _OPENERS.get(os.path.splitext(name)[1].lower(), open)
    try:
        with opener(name, "rb") as file:
            return file.read()
    except PermissionError as error:
        raise PermissionError(f"path {name!r} is not readable") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"path {name!r} does not exist") from error
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"path {name!r} is truncated, corrupt or not such an archive: "
            f"{error}"
        ) from error
