"""Vocabularies as text: one token a line, in the order of the ids."""

import reprlib


def read_vocabulary(path) -> list[str]:
    r"""Reads and checks a vocabulary file.

    Only line feeds end a line: words may hold what else Unicode takes for a
    line's end. Lines that end in `\r\n` throughout are read as well.

    Args:
        path: the file, UTF-8.

    Returns:
        The tokens in the order of their ids.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: naming the file and the line that is wrong.
    """
    with open(path, "rb") as stream:
        lines = stream.read().split(b"\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise ValueError(f"{path} must hold one token a line, got no line")
    if all(line.endswith(b"\r") for line in lines):
        lines = [line[:-1] for line in lines]
    first_line = {}
    for number, line in enumerate(lines, start=1):
        if not line:
            raise ValueError(
                f"{path} has an empty line {number}; each line must hold one "
                "token"
            )
        try:
            token = line.decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError(
                f"{path} is not UTF-8: line {number} is {reprlib.repr(line)}"
            ) from None
        if token in first_line:
            raise ValueError(
                f"{path} has the token {reprlib.repr(token)} on the lines "
                f"{first_line[token]} and {number}"
            )
        first_line[token] = number
    return list(first_line)
