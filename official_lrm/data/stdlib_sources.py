"""Reads the running interpreter's own library: text that is always there."""

import hashlib
import os
import sysconfig

# Tests are long repetitive tables, and many installations leave them out;
# installed packages differ from machine to machine.
_SKIPPED_FOLDERS = frozenset(
    {
        "__pycache__",
        "dist-packages",
        "idle_test",
        "site-packages",
        "test",
        "tests",
    }
)
# Written while the interpreter is built: folder names, compiler flags.
_BUILD_RECORDS = ("config-", "_sysconfigdata")

# A whole standard library has about 12 MB. Below this, what is left is not
# worth training on, and it is better to say so.
MINIMUM_BYTES = 1_000_000


def read_stdlib_sources(minimum_bytes=MINIMUM_BYTES):
    """Returns the names and the joined sources of the standard library.

        before: lib/{abc.py, json/tool.py, test/test_abc.py, ...} on disk
        after:  ["json/tool.py", ..., "abc.py"], their contents joined

    Every `*.py` file counts but tests, installed packages, records of the
    build, and symbolic links to a file that is there anyway. CRLF becomes LF
    and each file ends with a newline.

    The files are in the order of the SHA-256 of their relative path. Cut
    from an alphabetical list, the last 5% would be the XML and zip modules
    and the character tables of `encodings` would all be trained on; a hash
    mixes the packages, so that the splits come from the same distribution.
    The order depends neither on the file system nor on the Python version.

    Args:
        minimum_bytes: int, the least number of bytes accepted.

    Returns:
        `(names, text)`: list of str, POSIX paths relative to the library's
        folder, and bytes.

    Raises:
        FileNotFoundError: fewer than `minimum_bytes` of sources were found,
            as in a zipped or stripped standard library.
    """
    root = sysconfig.get_path("stdlib")
    paths = _find_sources(root)
    names = sorted(paths, key=_path_hash)
    text = b"".join(_read(paths[name]) for name in names)
    if len(text) < minimum_bytes:
        raise FileNotFoundError(
            f"corpus 'python_stdlib' found {len(names)} source files with "
            f"{len(text)} bytes in {root!r}, needed are at least "
            f"{minimum_bytes} bytes; is the standard library zipped or "
            f"stripped? use corpus 'text' with a path instead"
        )
    return names, text


def _find_sources(root):
    """Returns {relative POSIX path: path} of the files that count."""
    files, links = {}, {}
    for folder, subfolders, names in os.walk(root):
        # In place, which keeps os.walk out of them.
        subfolders[:] = [
            name
            for name in subfolders
            if name not in _SKIPPED_FOLDERS
            and not name.startswith(_BUILD_RECORDS)
        ]
        for name in names:
            if not name.endswith(".py") or name.startswith(_BUILD_RECORDS):
                continue
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, root).replace(os.sep, "/")
            (links if os.path.islink(path) else files)[relative] = path
    # Some systems build the whole library of links, so a link is left out
    # only if its target is among the files or was linked to before.
    targets = {os.path.realpath(path) for path in files.values()}
    for relative, path in sorted(links.items()):
        target = os.path.realpath(path)
        if os.path.isfile(target) and target not in targets:
            targets.add(target)
            files[relative] = path
    return files


def _path_hash(name):
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


def _read(path):
    with open(path, "rb") as file:
        text = file.read().replace(b"\r\n", b"\n")
    return text if text.endswith(b"\n") or not text else text + b"\n"
