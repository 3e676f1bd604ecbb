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
    source=None,
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
        source: dict of where `params` are from, for the JSON; None = unknown.

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
    figures = {
        "topology": topology,
        "cores": num_cores,
        "teraflops_per_core": chip.teraflops,
        "gigabytes_per_second_per_core": chip.gigabytes,
        **versions,
        **(source or {}),
        "rows": [],
        "verdicts": [],
        "ratios": [],
    }

    def record(name, value):
        figures[name].append(value)
        write_output(output, figures)

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
    rows = figures["rows"]
    for ratio in _ratios(rows) if sweep else ():
        print(
            "24:4 long memories, {program}, {options}: temporaries "
            "{temporaries:.2f} (paper {paper_activations:.2f}), roofline time "
            "{roofline_time:.2f} (paper {paper_time:.2f})".format(**ratio)
        )
        record("ratios", ratio)
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
            "fits": None,  # As long as it is not known.
        }
        if sweep:
            gigabytes, microseconds = TABLE_1[row["num_long"]]
            row["paper_activations_gb"] = gigabytes
            row["paper_us_per_token"] = microseconds
        try:
            figures = tpu_compiler.compile_apart(
                program, settings, options, topology, num_lanes
            )
        except DoesNotFit as error:
            row["fits"], row["does_not_fit"] = False, str(error)
        except CompilerKilled as error:
            row["killed"] = str(error)
        else:
            lanes = (
                settings.validation if program == "evaluate" else settings.train
            )
            row["fits"] = True
            row |= _per_token(figures, num_lanes * lanes.segment_length, chip)
        _print_row(row, options)
        record("rows", row)
        return row

    variants, everything = _variants(options, also, num_lanes, program)
    rows = [compile_one(variant) for variant in variants]
    if rows[0]["fits"] is False:
        # What would make it fit, the cheapest first.
        others, _ = _variants(options, ALSO, num_lanes, program)
        for variant in [*others[1:], everything]:
            tried = variant in variants
            if not tried and not any(row["fits"] for row in rows):
                variants.append(variant)
                rows.append(compile_one(variant))
    if rows[0]["fits"] is None:
        return
    fits_as = next(
        (
            str(variant)
            for variant, row in zip(variants, rows, strict=True)
            if row["fits"]
        ),
        None,
    )
    if not rows[0]["fits"]:
        print(
            f"{program} does not fit as {options}; "
            + (f"fits as {fits_as}" if fits_as else "nothing makes it fit")
        )
    elif not sweep:
        print(f"{program} fits as {options}")
    record(
        "verdicts",
        {
            "program": program,
            "num_long": rows[0]["num_long"],
            "options": str(options),
            "fits_as": fits_as,
        },
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


def _print_row(row, options):
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
    if "paper_us_per_token" in row:
        text += f"  {row['paper_activations_gb']:>8.2f}, "
        text += str(row["paper_us_per_token"])
    print(text, flush=True)


def _ratios(rows):
    # 24 to 4 long memories, of the same program and options.
    def key(row):
        names = (field.name for field in dataclasses.fields(Options))
        return row["program"], str(Options(*(row[name] for name in names)))

    few = {key(row): row for row in rows if row["num_long"] == 4}
    for row in rows:
        other = few.get(key(row), {})
        if row["num_long"] == 24 and row["fits"] and other.get("fits"):
            program, options = key(row)
            activations, time = (
                many / some
                for many, some in zip(TABLE_1[24], TABLE_1[4], strict=True)
            )
            yield {
                "program": program,
                "options": options,
                "temporaries": row["temporaries_bytes"]
                / other["temporaries_bytes"],
                "roofline_time": row["roofline_us_per_token"]
                / other["roofline_us_per_token"],
                "paper_activations": activations,
                "paper_time": time,
            }
