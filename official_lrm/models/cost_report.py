"""What memory spans cost, as text: bytes of state and FLOPs of a token."""

import itertools

from official_lrm.models.flop_count import TRAINING_FACTOR, count_flops


def state_table(
    spans, all_long, hidden_size, batch_size=1, dtype="float32", test_long=0
) -> str:
    """Bytes of the memories of these spans and of long ones in every layer.

    ```
    state, batch 1, float32   these spans      all long  share
      in training               46.00 MiB    216.00 MiB    21%
      long 6000, at test       103.75 MiB    562.50 MiB    18%
    ```

    Args:
        spans: MemorySpans.
        all_long: MemorySpans to compare them with, all of them long.
        hidden_size: D.
        batch_size: B, lanes.
        dtype: of the memories.
        test_long: span of the long layers at test time; 0 = no such row.
    """
    rows = [("in training", spans, all_long)]
    if test_long and (any(spans.is_long) or spans.lengths != all_long.lengths):
        rows.append(
            (
                f"long {test_long}, at test",
                spans.with_long(test_long),
                all_long.with_long(test_long),
            )
        )
    return _table(
        f"state, batch {batch_size}, {dtype}",
        [
            (
                name,
                *(x.state_bytes(hidden_size, batch_size, dtype) for x in row),
            )
            for name, *row in rows
        ],
        unit=2**20,
        unit_name="MiB",
    )


def flop_table(
    spans, all_long, segment_length, batch_size=1, **arguments
) -> str:
    """FLOPs per token of these spans, by layer, and of long ones everywhere.

    ```
    forward FLOPs per token, T 384, batch 32   these spans      all long  share
      span 2304, each of 2 layers (5 11)           63.11 M       63.11 M   100%
      span 128, each of 10 layers (0-4 6-10)       25.60 M       63.11 M    41%
      softmax                                       0.42 M        0.42 M   100%
      sum                                         382.67 M      757.75 M    51%
      sum in training, nominally 3 x            1,148.00 M    2,273.26 M    51%
    ```

    The softmax of a model with cutoffs is its first cluster only; a last line
    says what a target in one of the others adds.

    Args:
        spans: MemorySpans.
        all_long: MemorySpans to compare them with.
        segment_length: T.
        batch_size: B.
        **arguments: of TransformerXLLanguageModel, as for `count_flops`.
    """
    ours, theirs = (
        count_flops(x, segment_length, batch_size, **arguments)
        for x in (spans, all_long)
    )
    groups = {}
    for layer, span in enumerate(spans):
        groups.setdefault(span, []).append(layer)
    rows = [
        (
            f"span {span}, {_name_layers(layers)}",
            ours.layers[layers[0]],
            theirs.layers[layers[0]],
        )
        for span, layers in sorted(groups.items(), reverse=True)
    ]
    if ours.embedding:
        rows.append(("embedding", ours.embedding, theirs.embedding))
    rows += [
        ("softmax", ours.softmax, theirs.softmax),
        ("sum", ours.total, theirs.total),
        (
            f"sum in training, nominally {TRAINING_FACTOR} x",
            TRAINING_FACTOR * ours.total,
            TRAINING_FACTOR * theirs.total,
        ),
    ]
    # Small models in thousands.
    unit, unit_name = 10**6, "M"
    if ours.total < 10**7 * ours.num_tokens:
        unit, unit_name = 10**3, "k"
    table = _table(
        f"forward FLOPs per token, T {segment_length}, batch {batch_size}",
        rows,
        unit=unit * ours.num_tokens,
        unit_name=unit_name,
    )
    if ours.tails:
        costs = ", ".join(
            f"{flops / unit:,.2f} {unit_name}" for flops in ours.tails
        )
        table += (
            "\n  not in the sum: a target beyond a cutoff adds, by its "
            f"cluster, {costs}"
        )
    return table


def _table(title, rows, unit, unit_name):
    width = max(len(title), *(len(name) + 2 for name, *_ in rows))
    lines = [f"{title:<{width}}  {'these spans':>12}  {'all long':>12}  share"]
    for name, *amounts in rows:
        shown = [f"{amount / unit:,.2f} {unit_name}" for amount in amounts]
        share = f"{amounts[0] / amounts[1]:.0%}" if amounts[1] else "-"
        lines.append(
            f"  {name:<{width - 2}}  {shown[0]:>12}  {shown[1]:>12}  {share:>5}"
        )
    return "\n".join(lines)


def _name_layers(layers):
    # [0, 1, 2, 5, 7, 8] -> "each of 6 layers (0-2 5 7-8)"
    if len(layers) == 1:
        return f"layer {layers[0]}"
    # Neighbours differ from their places in the list by the same number.
    groups = itertools.groupby(
        enumerate(layers), key=lambda item: item[1] - item[0]
    )
    ranges = [[layer for _, layer in group] for _, group in groups]
    names = " ".join(
        f"{group[0]}-{group[-1]}" if len(group) > 1 else str(group[0])
        for group in ranges
    )
    return f"each of {len(layers)} layers ({names})"
