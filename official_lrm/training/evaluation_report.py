"""What tools/evaluate.py does and prints."""

import dataclasses
import os
import sys

from official_lrm.configs.settings import resolve
from official_lrm.data import (
    EvaluationLanes,
    load_corpus,
    tokenize_split,
    tokenizer_of_model,
)
from official_lrm.memory.spans import MemorySpans
from official_lrm.progress import ProgressLine
from official_lrm.training.checkpoint_contents import read_description
from official_lrm.training.checkpoint_files import newest_checkpoint
from official_lrm.training.evaluation import Evaluator
from official_lrm.training.evaluation_records import RecordFile, record_of
from official_lrm.training.evaluation_table import (
    best_of,
    print_positions,
    print_table,
)
from official_lrm.training.loading import (
    is_preset,
    load_model,
    read_tokenizer,
)
from official_lrm.training.params import PARAMS_FILE, read_params
from official_lrm.training.protocols import find_protocol
from official_lrm.training.scored_text import ScoredText

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
    protocol=None,
    positions=False,
    dtype=None,
):
    """Evaluates a model under one or more spans and prints a table.

    Args:
        path: a model_dir or a preset.
        corpus: name of the corpus; None = that of the model_dir that `path`
            is or is in; python_stdlib for other presets of bytes.
        input_path: its files; None = the model_dir's.
        split: which part of it.
        segment_length: T; None = that of `protocol`, else of the training.
        lanes: lanes that the text is cut into.
        max_tokens: targets to score at most; None = what `protocol` says,
            else all.
        spans: other memory lengths, one per layer, or None.
        arrangement: keyword arguments of MemorySpans.arrange beside
            num_layers, or None; not with `spans`.
        long_memory: lengths to sweep the long layers over, or None.
        overrides: of the model's `same_length`, `clamp_length` and
            `memory_dtype`.
        decode_tokens: targets to score at T=1 as well; 0 = none.
        output: path of a JSON lines file, which must not hold anything yet,
            or None. A line is there when its row is done.
        protocol: one of PROTOCOLS, whose values hold where the arguments
            above are None or empty; None = the model's own.
        positions: whether to print the loss by position as well.
        dtype: a Keras dtype policy or its name; None = the run's own.

    Returns:
        An EvaluationResult for each row of the table.

    Raises:
        ValueError: naming what cannot be evaluated.
        FileExistsError: if `output` holds something.
    """
    if spans is not None and arrangement is not None:
        raise ValueError("give spans or num_long, not both.")
    protocol = find_protocol(protocol) if protocol else None
    for name, value, least in (
        ("segment_length", segment_length, 1),
        ("lanes", lanes, 1),
        ("max_tokens", max_tokens, 1),
        ("decode_tokens", decode_tokens, 0),
    ):
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}; got {value}.")
    cache_dir, checkpoint, own_corpus = None, None, False
    trained_length = _DEFAULT_SEGMENT_LENGTH
    run = _run_of(path)
    if run is not None:
        params = read_params(run)
        settings = resolve(params)
        if corpus is None:
            own_corpus = not input_path
            corpus = settings.corpus
            input_path = input_path or settings.input_path
        cache_dir = params.task.corpus.cache_dir or None
        trained_length = settings.train.segment_length
        # Once: a run that goes on writes newer ones.
        newest = newest_checkpoint(run)
        checkpoint = None if is_preset(path) else newest
    segment_length = segment_length or (
        protocol.segment_length if protocol else trained_length
    )
    own = load_model(path, dtype=dtype, checkpoint=checkpoint)
    tokenizer = tokenizer_of_model(read_tokenizer(path), own.vocab_size, path)
    if corpus is None:
        # What it was trained on is not known, but for bytes any text will do.
        if tokenizer.type != "bytes":
            raise ValueError(
                f"{path} is a preset of {tokenizer.type} and belongs to no "
                "run: give --corpus, and --input_path where it needs one."
            )
        corpus = "python_stdlib"
    model = own
    if spans is not None:
        model = own.with_spans(spans)
    elif arrangement is not None:
        model = own.with_spans(
            MemorySpans.arrange(len(own.spans), **arrangement)
        )
    elif protocol and not long_memory:
        model = own.with_spans(protocol.spans(own.spans, tokenizer.unit))
    stated = protocol.overrides() if protocol else {}
    model = model.with_spans(model.spans, **{**stated, **(overrides or {})})
    if long_memory and not any(model.spans.is_long):
        raise ValueError(
            f"long_memory needs a long layer to change; {model.spans!r} has "
            "none."
        )
    models = [model]
    if long_memory:
        swept = map(model.spans.with_long, long_memory)
        models = [model.with_spans(spans) for spans in swept]
    corpus = load_corpus(corpus, input_path or None)
    if own_corpus and newest:
        _warn_of_other_text(run, newest, corpus)
    whole = tokenize_split(corpus, split, tokenizer, cache_dir)
    if max_tokens is None and protocol:
        max_tokens = protocol.max_tokens(split, tokenizer.unit)
    cut = whole.first_targets(max_tokens)
    print(f"model:  {path}, {model.count_params():,} parameters")
    print(f"corpus: {corpus.description}, split {split}")

    # Lanes that do not fit are refused before anything is counted or written.
    _cut_in_lanes(cut, lanes, segment_length)
    records = RecordFile(output) if output else None
    text = ScoredText.measure(cut, tokenizer, split, len(whole.tokens) - 1)
    about = {
        "model": path,
        **_describe_model(path, checkpoint, model),
        "corpus": corpus.name,
        "corpus_fingerprint": corpus.fingerprint,
        "tokenizer": tokenizer.type,
        "vocab_size": tokenizer.vocab_size,
    }
    results = []
    for row, row_model in enumerate(models):
        length = long_memory[row] if long_memory else None
        label = "evaluate" if length is None else f"long {length}"
        result = _score(row_model, cut, lanes, segment_length, label, text)
        if protocol:
            name = protocol.describe(row_model, own, result, length)
            result = dataclasses.replace(result, protocol_name=name)
        results.append(result)
        if records:
            records.append(record_of(result, **about))
    print_table(results, model.hidden_size, long_memory)
    best = best_of(results)
    print(f"protocol: {best.protocol}")
    if positions:
        print_positions(best)
    if decode_tokens:
        first = cut.first_targets(decode_tokens)
        _print_decoding(model, first, segment_length, text)
    if records:
        print(f"wrote {output}", file=sys.stderr)
    return results


def _cut_in_lanes(cut, num_lanes, segment_length):
    return EvaluationLanes(
        cut.tokens,
        num_lanes=num_lanes,
        segment_length=segment_length,
        document_starts=cut.document_starts,
    )


def _score(model, cut, num_lanes, segment_length, label, text):
    lanes = _cut_in_lanes(cut, num_lanes, segment_length)
    progress = ProgressLine(label, lanes.num_steps)
    result = Evaluator(model).run(
        lanes.dataset(),
        lanes,
        progress=lambda step, result: progress.update(step, result.figure),
        text=text,
    )
    progress.close()
    return result


def _describe_model(path, checkpoint, model):
    """Which weights, and in which arithmetic."""
    step = None
    if checkpoint is not None:
        name = os.path.basename(checkpoint)
        step = int(name.rpartition("-")[2])
    return {
        "preset": step is None,
        "checkpoint_step": step,
        "parameters": model.count_params(),
        "dtype_policy": model.dtype_policy.name,
    }


def _run_of(path):
    """The model_dir that a path is, or is a preset of; None = neither."""
    if not is_preset(path):
        return path
    parent = os.path.dirname(os.path.abspath(path))
    if os.path.isfile(os.path.join(parent, PARAMS_FILE)):
        return parent
    return None


def _warn_of_other_text(path, checkpoint, corpus):
    # Another Python or an edited file: its split may hold training text.
    trained = read_description(checkpoint)
    fingerprint = trained.get("corpus_fingerprint", corpus.fingerprint)
    if fingerprint != corpus.fingerprint:
        print(
            f"warning: {path} was trained on other text (sha256 "
            f"{fingerprint[:12]}); what follows is of sha256 "
            f"{corpus.fingerprint[:12]}.",
            file=sys.stderr,
        )


def _print_decoding(model, cut, segment_length, text):
    # Decoding gives each query fewer keys than training at T did.
    both = [
        _score(model, cut, 1, length, f"T={length}", text)
        for length in (segment_length, 1)
    ]
    figures = ", ".join(
        f"T={result.segment_length} {result.figure}" for result in both
    )
    print(
        f"first {both[1].tokens:,} targets, as training read them and as "
        f"decoding does: {figures} (1 lane, cold, {model.spans!r})"
    )
