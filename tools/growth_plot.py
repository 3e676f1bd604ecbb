"""A picture of `tools/benchmark.py train --table=growth`."""

from json_output import check_output

SUFFIXES = (".svg", ".png", ".pdf")


def check_path(path):
    """Refuses a path that no picture can be written to.

    Args:
        path: `--plot`, or None.

    Raises:
        ValueError: naming the path and what is allowed.
    """
    if path and not path.endswith(SUFFIXES):
        raise ValueError(
            f"--plot must end in {', '.join(SUFFIXES)}; got {path!r}."
        )
    check_output(path, "--plot")


def plot(results, path):
    """Draws a step's time and memory against each thing that grows.

    Args:
        results: list of dicts, one for each group: "group", its name, and
            "rows", each with "value", "seconds", "fastest", "slowest" and
            "peak_mib".
        path: of the picture, in one of SUFFIXES.
    """
    import matplotlib

    matplotlib.use("Agg")
    # The same figures give the same file, whose words are words.
    matplotlib.rcParams["svg.hashsalt"] = "growth"
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        2,
        len(results),
        figsize=(2.4 * len(results), 4),
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for result, (time, memory) in zip(results, axes.T, strict=True):
        rows = result["rows"]
        values = [row["value"] for row in rows]
        time.plot(values, [row["seconds"] for row in rows], marker="o")
        time.fill_between(
            values,
            [row["fastest"] for row in rows],
            [row["slowest"] for row in rows],
            alpha=0.2,
        )
        memory.plot(
            values, [row["peak_mib"] / 1024 for row in rows], marker="o"
        )
        memory.set_xlabel(result["group"])
        for axis in (time, memory):
            axis.set_xticks(values if max(values) < 10 else [0, max(values)])
            axis.grid(alpha=0.3)
    for axis, label in zip(
        axes[:, 0], ("seconds a step", "peak memory, GiB"), strict=True
    ):
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)  # Once all columns, which share it, are drawn.
    metadata = {"Date": None} if path.endswith(".svg") else None
    figure.savefig(path, metadata=metadata)
    pyplot.close(figure)
