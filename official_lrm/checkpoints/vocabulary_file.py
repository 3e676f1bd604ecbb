"""Vocabularies as text: one token a line, in the order of the ids."""


def read_vocabulary(path, vocab_size: int) -> list[str]:
    r"""Reads and checks a vocabulary file.

    Only line feeds end a line: words may hold what else Unicode takes for a
    line's end. Lines that end in `\r\n` throughout are read as well.

    Args:
        path: the file, UTF-8.
        vocab_size: number of tokens that the model has.

    Returns:
        The tokens in the order of their ids.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: naming the line that is wrong, or both numbers of tokens.
    """
    with open(path, "rb") as stream:
        content = stream.read()
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from None
    if not lines[-1]:
        lines.pop()
    if lines and all(line.endswith("\r") for line in lines):
        lines = [line[:-1] for line in lines]
    first_line = {}
    for number, line in enumerate(lines, start=1):
        if not line:
            raise ValueError(
                f"{path} has an empty line {number}; each line must hold one "
                "token."
            )
        if line in first_line:
            raise ValueError(
                f"{path} has the token {line!r} in the lines "
                f"{first_line[line]} and {number}."
            )
        first_line[line] = number
    if len(lines) != vocab_size:
        raise ValueError(
            f"{path} must hold {vocab_size:,} tokens, as the model does; got "
            f"{len(lines):,}."
        )
    return lines
