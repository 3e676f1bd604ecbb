"""How fast training steps are, beside those of other Transformer-XLs.

Each contender is a process of its own; they take their steps in turns, so that
what else the machine does hits all of them.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import sys

from child_process import ChildProcess
from machine_ceilings import matrix_product_rate, memory_read_rate

import official_lrm as lrm
from official_lrm.models.flop_count import count_flops

TOOLS = pathlib.Path(__file__).resolve().parent
OURS = "official_lrm"

#: 6 layers, D 512, 8 x 64, F 2048, 256 symbols: 20.6 M parameters.
SIZES_P = {
    "vocab_size": 256,
    "hidden_size": 512,
    "num_heads": 8,
    "head_size": 64,
    "inner_size": 2048,
}
#: 24 layers, D 256, 8 x 32, F 1024.
SIZES_DEEP = {
    "vocab_size": 256,
    "hidden_size": 256,
    "num_heads": 8,
    "head_size": 32,
    "inner_size": 1024,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """A contender and its work.

    Attributes:
        name: whose model it is.
        spans: memory length of each layer.
        sizes: of the model, as TransformerXLLanguageModel's arguments.
        dtype: Keras dtype policy.
        batch_size: B.
        segment_length: T.
        dropout: rate everywhere but on attention probabilities.
        rematerialize: as TransformerXLLanguageModel.score's.
    """

    name: str
    spans: tuple[int, ...]
    sizes: dict
    dtype: str = "float32"
    batch_size: int = 8
    segment_length: int = 128
    dropout: float = 0.1
    rematerialize: bool = False

    def __str__(self):
        spans = lrm.MemorySpans(self.spans)
        long = max(spans)
        num_long = sum(span == long for span in spans)
        text = f"{self.name}, {self.dtype}, {num_long} of {len(spans)} x {long}"
        return text + (", rematerialized" if self.rematerialize else "")

    @property
    def flops(self) -> int:
        """That a step needs at the least: FlopCount.training."""
        return count_flops(
            self.spans, self.segment_length, self.batch_size, **self.sizes
        ).training

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.batch_size * self.segment_length

    def workload(self) -> str:
        """What the contender is told, as JSON."""
        return json.dumps(
            {
                **self.sizes,
                "spans": self.spans,
                "dtype": self.dtype,
                "batch_size": self.batch_size,
                "segment_length": self.segment_length,
                "dropout": self.dropout,
                "attention_dropout": 0.0,
                "rematerialize": self.rematerialize,
            }
        )


def peer_rows(dropout):
    """Config P: our model in two precisions and two memories, and peers."""
    full = (768,) * 6
    one_long = (32,) * 5 + (768,)
    common = {"sizes": SIZES_P, "dropout": dropout}
    return [
        *(
            Row(OURS, spans, dtype=dtype, **common)
            for spans in (full, one_long)
            for dtype in ("mixed_bfloat16", "float32")
        ),
        Row(OURS, full, rematerialize=True, **common),
        Row("Hugging Face", full, **common),
        Row("Model Garden", full, **common),
    ]


def deep_rows(dropout):
    """24 layers, T 384, one lane: long memories in all and in 4 of them."""
    return [
        Row(
            OURS,
            tuple(lrm.MemorySpans.arrange(24, num_long, long=2304, short=128)),
            SIZES_DEEP,
            dtype,
            batch_size=1,
            segment_length=384,
            dropout=dropout,
        )
        for dtype in ("mixed_bfloat16", "float32")
        for num_long in (24, 4)
    ]


def growth_rows(dropout):
    """One thing grows at a time, from 6 layers with 2 long memories of 768."""

    def row(num_layers=6, num_long=2, long=768, **options):
        spans = lrm.MemorySpans.arrange(
            num_layers, num_long, "last", long=long, short=min(32, long)
        )
        return Row(
            OURS,
            tuple(spans),
            SIZES_P,
            "mixed_bfloat16",
            dropout=dropout,
            **options,
        )

    return {
        "long memories": {n: row(num_long=n) for n in range(7)},
        "their length": {
            n: row(long=n) for n in (0, 256, 512, 1024, 2048, 4096)
        },
        "segment length": {
            n: row(segment_length=n) for n in (32, 64, 128, 256, 512)
        },
        "lanes": {n: row(batch_size=n) for n in (1, 2, 4, 8, 16)},
        "layers": {n: row(num_layers=n) for n in (3, 6, 12, 24)},
    }


def compare(rows, repeats, peer_python):
    """Times a step of each row, in turns.

    Args:
        rows: list of Row.
        repeats: steps of each.
        peer_python: interpreter that has torch and transformers, or None.

    Returns:
        A list of dicts, one for each row that could be run, and the ceilings:
        `{dtype: median FLOP/s}` and bytes/s of "memory".
    """
    dtypes = sorted({row.dtype for row in rows})
    with contextlib.ExitStack() as stack:
        running = {}
        for row in rows:
            child = _start(row, peer_python)
            if child is not None:
                stack.callback(child.close)
                running[row] = child
        answers = {row: [] for row in running}
        rates = {name: [] for name in (*dtypes, "memory")}
        for repeat in range(repeats):
            for row, child in running.items():
                answers[row].append(json.loads(child.ask()))
            for dtype in dtypes:
                rates[dtype].append(matrix_product_rate(dtype))
            rates["memory"].append(memory_read_rate())
            _progress(f"{repeat + 1} of {repeats} rounds")
        _progress("")
        ceilings = {
            name: statistics.median(values) for name, values in rates.items()
        }
        measured = [
            _measured(row, json.loads(child.first_line), answers[row], ceilings)
            for row, child in running.items()
        ]
    return measured, ceilings


def _start(row, peer_python):
    python, program = {
        OURS: (sys.executable, "training_of_lrm.py"),
        "Hugging Face": (peer_python, "training_of_huggingface.py"),
        "Model Garden": (sys.executable, "training_of_model_garden.py"),
    }[row.name]
    if python is None:
        print(f"{row}: missing, needs --peer_python", flush=True)
        return None
    _progress(f"starting {row}")
    child = ChildProcess(python, str(TOOLS / program), row.workload())
    if child.first_line:
        return child
    child.close()
    print(f"{row}: missing, {program} did not run under {python}", flush=True)
    return None


def _measured(row, description, answers, ceilings):
    seconds = [answer["seconds"] for answer in answers]
    median = statistics.median(seconds)
    return {
        "row": str(row),
        **dataclasses.asdict(row),
        **description,
        "seconds": median,
        "fastest": min(seconds),
        "slowest": max(seconds),
        "tokens_per_second": row.tokens / median,
        "peak_mib": answers[-1]["peak_mib"],
        "gflop": row.flops / 1e9,
        "share_of_ceiling": row.flops / median / ceilings[row.dtype],
    }


def ceiling_lines(ceilings):
    """The ceilings, as text."""
    for name, rate in ceilings.items():
        if name == "memory":
            yield f"ceiling, reading from memory: {rate / 1e9:.1f} GB/s"
        else:
            yield f"ceiling, {name} product: {rate / 1e9:,.0f} GFLOP/s"


HEADER = (
    f"{'':52}{'tokens/s':>9}{'ms a step':>10}{'spread':>13}{'peak MiB':>9}"
    f"{'import':>8}"
    f"{'GFLOP':>7}{'of ceiling':>11}{'M params':>9}"
)


def line_of(measured):
    """A row of the table."""
    spread = f"{measured['fastest'] * 1e3:.0f}-{measured['slowest'] * 1e3:.0f}"
    return (
        f"{measured['row']:52}{measured['tokens_per_second']:9,.0f}"
        f"{measured['seconds'] * 1e3:10.0f}{spread:>13}"
        f"{measured['peak_mib']:9,.0f}{measured['framework_mib']:8,.0f}"
        f"{measured['gflop']:7.0f}"
        f"{measured['share_of_ceiling']:11.0%}"
        f"{measured['parameters'] / 1e6:9.1f}"
    )


def ratio_lines(measured):
    """Tokens/s of our rows beside those of peers with the same memory."""
    ours = [m for m in measured if m["name"] == OURS]
    for peer in measured:
        if peer["name"] != OURS:
            for m in ours:
                if m["spans"] == peer["spans"]:
                    ratio = m["tokens_per_second"] / peer["tokens_per_second"]
                    yield f"{m['row']}: {ratio:.2f} x {peer['row']}"
    for i, m in enumerate(ours):
        for other in ours[:i]:
            if m["dtype"] == other["dtype"]:
                time = other["seconds"] / m["seconds"]
                work = other["gflop"] / m["gflop"]
                memory, more = (
                    x["peak_mib"] - x["framework_mib"] for x in (m, other)
                )
                text = f"{m['row']}: {time:.2f} x {other['row']}, "
                text += f"1/{work:.2f} of its work"
                if memory > 0:  # Imports may have held more.
                    text += f", 1/{more / memory:.2f} of its memory"
                yield text


def _progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def check_peer_python(python):
    """Refuses a path that is no interpreter."""
    if python is not None and not os.access(python, os.X_OK):
        raise ValueError(
            f"--peer_python must be an interpreter with torch and "
            f"transformers 4.35; there is none at {python}."
        )
