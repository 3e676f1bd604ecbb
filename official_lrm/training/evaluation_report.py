"""The table that tools/evaluate.py prints."""

import dataclasses
import json
import sys

import tensorflow as tf

from official_lrm.configs.settings import resolve
from official_lrm.data import (
    EvaluationLanes,
    load_corpus,
    tokenizer_of_model,
)
from official_lrm.memory.spans import MemorySpans
from official_lrm.training.checkpointing import read_description
from official_lrm.training.evaluation import Evaluator
from official_lrm.training.loading import (
    is_preset,
    load_model,
    read_tokenizer,
)
from official_lrm.training.params import read_params
from official_lrm.progress import ProgressLine

_DEFAULT_SEGMENT_LENGTH = 128


def report(
    path,
    corpus=None,
    input_path=None,
    split="validation",
    segment_length=None,
    lanes=1,
    max_tokens=None,
    spans=None,
    arrangement=None,
    long_memory=None,
    overrides=None,
    decode_tokens=0,
    output=None,
):
    """Evaluates a model under one or more spans and prints a table.

    Args:
        path: a model_dir or a preset.
        corpus: name of the corpus; None = the model_dir's.
        input_path: its files; None = the model_dir's.
        split: which part of it.
        segment_length: T; None = the training T.
        lanes: lanes that the text is cut into.
        max_tokens: targets to score at most; None = all.
        spans: other memory lengths, one per layer, or None.
        arrangement: keyword arguments of MemorySpans.arrange beside
            num_layers, or None; not with `spans`.
        long_memory: lengths to sweep the long layers over, or None.
        overrides: of the model's `same_length` and `clamp_length`.
        decode_tokens: targets to score at T=1 as well; 0 = none.
        output: path of a JSON lines file, or None.

    Returns:
        An EvaluationResult for each row of the table.

    Raises:
        ValueError: naming what cannot be evaluated.
    """
    if spans is not None and arrangement is not None:
        raise ValueError("give spans or num_long, not both.")
    own_corpus = False
    if is_preset(path):
        corpus = corpus or "python_stdlib"
        segment_length = segment_length or _DEFAULT_SEGMENT_LENGTH
    else:
        settings = resolve(read_params(path))
        if corpus is None:
            own_corpus = not input_path
            corpus = settings.corpus
            input_path = input_path or settings.input_path
        segment_length = segment_length or settings.train.segment_length
    for name, value in (
        ("segment_length", segment_length),
        ("lanes", lanes),
        ("max_tokens", max_tokens),
    ):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}.")
    if decode_tokens < 0:
        raise ValueError(
            f"decode_tokens must not be negative; got {decode_tokens}."
        )
    model = load_model(path, spans=spans)
    if arrangement is not None:
        spans = MemorySpans.arrange(len(model.spans), **arrangement)
        model = model.with_spans(spans)
    model = model.with_spans(model.spans, **(overrides or {}))
    if long_memory and not any(model.spans.is_long):
        raise ValueError(
            f"long_memory needs a long layer to change; {model.spans!r} has "
            "none."
        )
    text = load_corpus(corpus, input_path or None)
    if own_corpus:
        _warn_of_other_text(path, text)
    tokenizer = tokenizer_of_model(read_tokenizer(path), model.vocab_size, path)
    tokens = text.encode(split, tokenizer)
    if max_tokens is not None:
        tokens = tokens[: max_tokens + 1]
    print(f"model:  {path}, {model.count_params():,} parameters")
    print(f"corpus: {text.description}, split {split}")

    if output:
        open(output, "a").close()  # Fails now and not after an hour.

    swept = [model.spans]
    if long_memory:
        swept = [model.spans.with_long(length) for length in long_memory]
    results = []
    for row, row_spans in enumerate(swept):
        label = f"long {long_memory[row]}" if long_memory else "evaluate"
        row_model = model.with_spans(row_spans)
        results.append(_score(row_model, tokens, lanes, segment_length, label))
    _print_table(results, model, long_memory)
    best = min(results, key=lambda result: result.nats)
    print(f"protocol: {best.protocol}")
    if decode_tokens:
        _print_decoding(model, tokens[: decode_tokens + 1], segment_length)
    if output:
        _write_json_lines(output, results, path, text, split)
    return results


def _score(model, tokens, lanes, segment_length, label):
    cut = EvaluationLanes(
        tokens, num_lanes=lanes, segment_length=segment_length
    )
    progress = ProgressLine(label, cut.num_steps)
    result = Evaluator(model).run(
        cut.dataset(),
        cut,
        progress=lambda step, result: progress.update(
            step, f"{result.bits_per_token:.4f} bpc"
        ),
    )
    progress.close()
    return result


def _print_table(results, model, long_memory):
    best = min(result.nats for result in results)
    heads = ("long", "bpc", "nats", "perplexity", "targets", "state", "time")
    rows = []
    for row, result in enumerate(results):
        spans = MemorySpans(result.spans)
        state = spans.state_bytes(model.hidden_size, result.lanes)
        marked = len(results) > 1 and result.nats == best
        rows.append(
            (
                str(long_memory[row] if long_memory else max(spans)),
                f"{result.bits_per_token:.4f}" + ("*" if marked else " "),
                f"{result.nats_per_token:.4f}",
                f"{result.perplexity:.3f}",
                f"{result.tokens:,}",
                f"{state / 2**20:.2f} MiB",
                f"{result.seconds:.0f} s",
            )
        )
    widths = [
        max(len(row[column]) for row in (heads, *rows))
        for column in range(len(heads))
    ]
    for row in (heads, *rows):
        print(
            "  ".join(
                cell.rjust(width)
                for cell, width in zip(row, widths, strict=True)
            )
        )
    if len(results) > 1:
        print("* the best")


def _warn_of_other_text(path, text):
    # Another Python or an edited file: its split may hold training text.
    trained = read_description(tf.train.latest_checkpoint(path))
    fingerprint = trained.get("corpus_fingerprint", text.fingerprint)
    if fingerprint != text.fingerprint:
        print(
            f"warning: {path} was trained on other text (sha256 "
            f"{fingerprint[:12]}); what follows is of sha256 "
            f"{text.fingerprint[:12]}.",
            file=sys.stderr,
        )


def _print_decoding(model, tokens, segment_length):
    # Decoding gives each query fewer keys than training at T did.
    both = [
        _score(model, tokens, 1, length, f"T={length}")
        for length in (segment_length, 1)
    ]
    figures = ", ".join(
        f"T={result.segment_length} {result.bits_per_token:.4f} bpc"
        for result in both
    )
    print(
        f"first {both[1].tokens:,} targets, as training read them and as "
        f"decoding does: {figures} (1 lane, cold, {model.spans!r})"
    )


def _write_json_lines(path, results, model_path, text, split):
    with open(path, "w", encoding="utf-8") as stream:
        for result in results:
            record = {
                "model": model_path,
                "corpus": text.name,
                "corpus_fingerprint": text.fingerprint,
                "split": split,
                **dataclasses.asdict(result),
                "nats_per_token": result.nats_per_token,
                "bits_per_token": result.bits_per_token,
                "perplexity": result.perplexity,
                "protocol": result.protocol,
            }
            json.dump(record, stream)
            stream.write("\n")
    print(f"wrote {path}", file=sys.stderr)
