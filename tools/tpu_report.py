"""The table and the JSON of `tools/compile_for_tpu.py`."""

import dataclasses
import importlib.metadata

import tpu_compiler
from json_output import check_output, write_output
from tpu_chips import chip_of
from tpu_compiler import PROGRAMS, CompilerKilled, DoesNotFit, Options

from official_lrm.configs.settings import resolve
from official_lrm.memory.spans import MemorySpans
from official_lrm.tasks.gradient_accumulation import check_groups

#: Rae & Razavi (2020), table 1: long memories -> activations in GB,
#: microseconds a token.
TABLE_1 = {
    24: (3.4, 405),
    12: (2.8, 273),
    4: (1.1, 191),
    1: (0.50, 155),
    0: (0.20, 143),
}

ALSO = ("rematerialize", "accumulate", "bfloat16")

_HEADER = (
    f"{'program':<10}{'LRM':>4}  {'options':<38}{'peak GiB':>9}"
    f"{'temp GiB':>9}{'temp GB':>8}{'args GiB':>9}{'GFLOP/t':>8}{'MB/t':>7}"
    f"{'us/t':>6}  bound"
)


def report(
    params,
    topology,
    programs,
    lanes_per_core=None,
    also=(),
    sweep=False,
    output=None,
):
    """Compiles and prints, row by row.

    Args:
        params: ExperimentConfig.
        topology: such as "v3:4x4".
        programs: of tpu_compiler.PROGRAMS.
        lanes_per_core: instead of global_batch_size over the cores.
        also: of ALSO, options to compile each program with, too.
        sweep: whether to compile TABLE_1's numbers of long memories.
        output: a file for the figures as JSON, or None.

    Raises:
        ValueError: naming what cannot be compiled.
    """
    _check_names("--programs", programs, PROGRAMS)
    _check_names("--with", also, ALSO)
    check_output(output)
    settings = resolve(params)
    # A dict can be sent to the process that compiles.
    settings = dataclasses.replace(settings, model=dict(settings.model))
    chip = chip_of(topology)
    num_cores = len(tpu_compiler.topology_devices(topology))
    lanes = {
        program: lanes_per_core
        or _lanes_per_core(settings, program, topology, num_cores)
        for program in programs
    }
    options = Options(
        settings.dtype_policy,
        params.task.model.rematerialize,
        settings.gradient_accumulation_steps,
    )
    for program in programs:
        if program != "evaluate":
            check_groups(options.num_groups, lanes[program])
    versions = {
        name: importlib.metadata.version(name)
        for name in ("jax", "libtpu", "keras")
    }
    print(
        "compiled, not run: "
        + ", ".join(f"{name} {value}" for name, value in versions.items())
    )
    print(
        f"{topology}: {num_cores} cores of {chip.teraflops:g} TFLOP/s and "
        f"{chip.gigabytes:g} GB/s; lanes a core: "
        + ", ".join(f"{name} {value}" for name, value in lanes.items())
    )
    print(_HEADER + ("   paper GB, us/t" if sweep else ""), flush=True)
    rows = []

    def record(row):
        rows.append(row)
        write_output(output, {"topology": topology, **versions, "rows": rows})

    for variant in _swept(settings) if sweep else [settings]:
        for program in programs:
            _compile_all(
                program,
                variant,
                options,
                also,
                topology,
                lanes[program],
                chip,
                sweep,
                record,
            )
    if sweep:
        _print_ratios(rows)
    if killed := sum("killed" in row for row in rows):
        raise ValueError(
            f"{killed} of {len(rows)} programs were not compiled: see above."
        )


def _check_names(flag, names, allowed):
    for name in names:
        if name not in allowed:
            raise ValueError(
                f"{flag} must be of {', '.join(allowed)}; got {name!r}."
            )


def _lanes_per_core(settings, program, topology, num_cores):
    field, lanes = "train_data", settings.train.num_lanes
    if program == "evaluate":
        field, lanes = "validation_data", settings.validation.num_lanes
    if lanes % num_cores:
        raise ValueError(
            f"task.{field}.global_batch_size must be a multiple of the "
            f"{num_cores} cores of {topology}; got {lanes}. Choose a smaller "
            "--topology, or the lanes of a core with --lanes_per_core=1."
        )
    return lanes // num_cores


def _swept(settings):
    spans = settings.spans
    long, short = max(spans), min(spans)
    if long == short:
        long, short = 2304, 128
    for num_long in TABLE_1:
        if num_long <= len(spans):
            arranged = MemorySpans.arrange(
                len(spans), num_long, "interleaved", long, short
            )
            yield dataclasses.replace(
                settings, model={**settings.model, "spans": arranged}
            )


def _variants(options, also, num_lanes, program):
    # The options themselves, then each of `also` that changes them.
    changes = {
        "rematerialize": {"rematerialize": True},
        "accumulate": {"num_groups": num_lanes},
        "bfloat16": {"dtype_policy": "mixed_bfloat16"},
    }
    if program == "evaluate":  # It holds no activations.
        changes = {"bfloat16": changes["bfloat16"]}
    variants = [options]
    for name in also:
        variant = dataclasses.replace(options, **changes.get(name, {}))
        if variant not in variants:
            variants.append(variant)
    everything = {key: x for c in changes.values() for key, x in c.items()}
    return variants, dataclasses.replace(options, **everything)


def _compile_all(
    program, settings, options, also, topology, num_lanes, chip, sweep, record
):
    def compile_one(options):
        row = {
            "program": program,
            "num_long": sum(settings.spans.is_long),
            "spans": list(settings.spans),
            **dataclasses.asdict(options),
            "lanes_per_core": num_lanes,
        }
        try:
            figures = tpu_compiler.compile_apart(
                program, settings, options, topology, num_lanes
            )
        except DoesNotFit as error:
            row["does_not_fit"] = str(error)
        except CompilerKilled as error:
            row["killed"] = str(error)
        else:
            lanes = (
                settings.validation
                if program == "evaluate"
                else (settings.train)
            )
            row |= _per_token(figures, num_lanes * lanes.segment_length, chip)
        _print_row(row, options, sweep)
        record(row)
        return row

    variants, everything = _variants(options, also, num_lanes, program)
    rows = [compile_one(variant) for variant in variants]
    if "does_not_fit" in rows[0]:
        # What would make it fit, the cheapest first.
        others, _ = _variants(options, ALSO, num_lanes, program)
        for variant in [*others[1:], everything]:
            tried = variant in variants
            if not tried and not any("hbm_peak_bytes" in row for row in rows):
                variants.append(variant)
                rows.append(compile_one(variant))
        fitting = [
            str(variant)
            for variant, row in zip(variants, rows, strict=True)
            if "hbm_peak_bytes" in row
        ]
        print(
            f"{program} does not fit as {options}; "
            + (f"fits as {fitting[0]}" if fitting else "nothing makes it fit")
        )


def _per_token(figures, tokens, chip):
    return {
        "hbm_peak_bytes": figures.hbm_peak,
        "temporaries_bytes": figures.temporaries,
        "arguments_bytes": figures.arguments,
        "gflop_per_token": figures.flops / tokens / 1e9,
        "mb_per_token": figures.bytes_accessed / tokens / 1e6,
        "roofline_us_per_token": 1e6
        / tokens
        * chip.seconds(figures.flops, figures.bytes_accessed),
        "bound": chip.bound(figures.flops, figures.bytes_accessed),
    }


def _print_row(row, options, sweep):
    text = f"{row['program']:<10}{row['num_long']:>4}  {str(options):<38}"
    if "does_not_fit" in row:
        print(f"{text}  does not fit: {row['does_not_fit']}", flush=True)
        return
    if "killed" in row:
        print(f"{text}  {row['killed']}", flush=True)
        return
    text += (
        f"{row['hbm_peak_bytes'] / 2**30:>9.2f}"
        f"{row['temporaries_bytes'] / 2**30:>9.3f}"
        f"{row['temporaries_bytes'] / 1e9:>8.3f}"
        f"{row['arguments_bytes'] / 2**30:>9.2f}"
        f"{row['gflop_per_token']:>8.2f}{row['mb_per_token']:>7.1f}"
        f"{row['roofline_us_per_token']:>6.0f}  {row['bound']:<7}"
    )
    if sweep:
        gigabytes, microseconds = TABLE_1[row["num_long"]]
        text += f"  {gigabytes:>8.2f}, {microseconds}"
    print(text, flush=True)


def _print_ratios(rows):
    # 24 to 4 long memories, of the same program and options.
    def key(row):
        names = (field.name for field in dataclasses.fields(Options))
        return f"{row['program']}, {Options(*(row[name] for name in names))}"

    few = {key(row): row for row in rows if row["num_long"] == 4}
    for row in rows:
        other = few.get(key(row), {})
        compiled = "hbm_peak_bytes" in row and "hbm_peak_bytes" in other
        if row["num_long"] != 24 or not compiled:
            continue
        memory, time = (
            row[name] / other[name]
            for name in ("temporaries_bytes", "roofline_us_per_token")
        )
        print(
            f"24:4 long memories, {key(row)}: "
            f"temporaries {memory:.2f} (paper 3.09), roofline time "
            f"{time:.2f} (paper 2.12)"
        )
