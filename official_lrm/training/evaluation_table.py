"""Figures as tables for people."""

import math

from official_lrm.memory.spans import MemorySpans

# Columns of figures by the unit of a token, the one to compare first; what
# would say the same twice is left out (a character here is a byte, and the
# tokens of a text of words are its words).
_FIGURES = {
    "character": ("bpc", "nats", "word_ppl"),
    "word": ("perplexity", "nats", "bpb"),
    "piece": ("perplexity", "nats", "bpb", "word_ppl"),
}


def best_of(results):
    """The result of least loss; one that is no number is not the best.

    Args:
        results: list of EvaluationResult.
    """
    return min(
        results, key=lambda result: (math.isnan(result.nats), result.nats)
    )


def print_table(results, hidden_size, long_memory=None):
    """Prints a row for each result and marks the best of several.

    Args:
        results: list of EvaluationResult of the same targets.
        hidden_size: D, for the size of the state.
        long_memory: the spans of the long layers of each, or None.
    """
    best = best_of(results)
    figures = _FIGURES[results[0].text.unit]
    rows = [("long", *figures, "targets", "state", "time")]
    for row, result in enumerate(results):
        spans = MemorySpans(result.spans)
        dtype = result.memory_dtype or result.dtype
        state = spans.state_bytes(hidden_size, result.lanes, dtype)
        marked = len(results) > 1 and result.nats == best.nats
        first, *others = (_figure(result, name) for name in figures)
        rows.append(
            (
                str(long_memory[row] if long_memory else max(spans)),
                first + ("*" if marked else " "),
                *others,
                f"{result.tokens:,}",
                f"{state / 2**20:.2f} MiB",
                f"{result.seconds:.0f} s",
            )
        )
    _print_aligned(rows)
    if len(results) > 1:
        on_test = results[0].text.split == "test"
        print(
            "* the best"
            + (" (a memory is to be chosen on validation)" if on_test else "")
        )


def print_positions(result):
    """Prints how the loss falls with the number of tokens seen.

    Args:
        result: EvaluationResult.
    """
    characters = result.text.unit == "character"
    rows = [
        ("position", "bpc" if characters else "perplexity", "nats", "targets")
    ]
    for row in result.positions:
        nats, bounds = row["nats_per_token"], [row["first"], row["last"]]
        rows.append(
            (
                "-".join(f"{value:,}" for value in sorted(set(bounds))),
                f"{nats / math.log(2):.4f}"
                if characters
                else f"{row['perplexity']:.3f}",
                f"{nats:.4f}",
                f"{row['tokens']:,}",
            )
        )
    print("by tokens before the input in its lane and document:")
    _print_aligned(rows)


def _figure(result, name):
    value, digits = {
        "bpc": (result.bits_per_token, 4),
        "nats": (result.nats_per_token, 4),
        "perplexity": (result.perplexity, 3),
        "bpb": (result.bits_per_byte, 4),
        "word_ppl": (result.word_perplexity, 3),
    }[name]
    if value is None:
        return "-"
    # Of an untrained model a perplexity per word has hundreds of digits.
    return f"{value:.{digits}f}" if value < 1e7 else f"{value:.2e}"


def _print_aligned(rows):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(
                cell.rjust(width)
                for cell, width in zip(row, widths, strict=True)
            )
        )
