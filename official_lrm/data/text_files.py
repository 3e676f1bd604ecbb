"""Reads text files, plain or compressed, named by path, glob or list."""

import glob
import os
import pathlib

from official_lrm.data.text_source import TextSource

_EXPECTED = "a file, a glob, a comma-separated list of these, or a list"


class TextFiles:
    """The files that a path names, joined.

        before: "a/*.txt,b.xz"  with a/2.txt, a/10.txt and b.xz on disk
        after:  names ["a/10.txt", "a/2.txt", "b.xz"]

    The files of one glob come in sorted order, the items of a list in the
    order given. Nothing is put between two files. `.xz` and `.gz` files are
    decompressed. A name with a comma or a wildcard in it that exists as a
    file is that file. Empty files that a glob finds are passed over.

    Args:
        path: str or os.PathLike, or a list or tuple of them.

    Attributes:
        names: list of str.

    Raises:
        FileNotFoundError: a file is missing or a glob matches no file.
        ValueError: `path` names nothing, names a directory, or the same file
            twice.
    """

    def __init__(self, path):
        self._path = path
        self._named, self.names, seen = set(), [], set()
        for item in _items(path):
            for name in _expand(item):
                # Text that occurs twice would sit in two splits at once.
                if os.path.realpath(name) in seen:
                    raise ValueError(
                        f"path names {name!r} twice; allowed is each file once"
                    )
                seen.add(os.path.realpath(name))
                self.names.append(name)
                if name == item:
                    self._named.add(name)
        self._stamps = {name: _stamp(name) for name in self.names}

    def blocks(self):
        """Yields the text in blocks of about a megabyte.

        Raises:
            FileNotFoundError: a file is missing.
            PermissionError: a file cannot be read.
            ValueError: a file that was named is empty, or all files are, or
                an archive is corrupt or truncated, or a file has changed
                since this object was made.
        """
        anything = False
        for name in self.names:
            empty = True
            for block in TextSource(pathlib.Path(name)).blocks():
                anything, empty = True, False
                yield block
            if _stamp(name) != self._stamps[name]:
                raise ValueError(f"path {name!r} has changed while in use")
            if empty and name in self._named:
                raise ValueError(f"path {name!r} is an empty file")
        if not anything:
            raise ValueError(f"path {self._path!r} matches only empty files")


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


def _stamp(name):
    """What tells whether a file is still the same; None without a file."""
    try:
        status = os.stat(name)
    except OSError:
        return None  # Reading it says why.
    return status.st_size, status.st_mtime_ns, status.st_ino
