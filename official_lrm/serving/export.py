"""Writing a SavedModel that TF Serving can load."""

import json
import os
import shutil

import tensorflow as tf

from official_lrm.memory.spans import MemorySpans
from official_lrm.models.presets import TOKENIZER_FILE
from official_lrm.serving import checks
from official_lrm.serving.signatures import ServingModule
from official_lrm.serving.warmup import write_warmup

#: Folder of a SavedModel that TF Serving leaves alone.
EXTRA_FOLDER = "assets.extra"


STATES = ("carried", "resident")

#: Sessions that a resident export keeps by default.
NUM_SESSIONS = 16


def export_saved_model(
    model,
    export_dir,
    version=None,
    tokenizer=None,
    state="carried",
    num_sessions=NUM_SESSIONS,
    spans=None,
    **overrides,
):
    """Exports a model with its signatures to `<export_dir>/<version>/`.

    ```python
    export_saved_model(
        model, "exports/first", memory_format="key_value", memory_dtype="int8"
    )
    ```

    The folder appears under its final name only when it is complete: TF
    Serving, which polls `export_dir`, never sees half a model.

    Args:
        model: a TransformerXLLanguageModel.
        export_dir: the folder that TF Serving watches; made if missing.
        version: a positive integer; None = one more than the highest there.
        tokenizer: a TextTokenizer, for the signatures `tokenize` and
            `detokenize` and `generate_text`, and kept beside the model for
            clients; or None.
        state: "carried", memories are inputs and outputs; or "resident": there
            are also signatures of sessions, whose memories stay in the server
            (one replica, lost when it ends).
        num_sessions: with "resident", how many sessions are kept.
        spans: other memory spans than the model's, or None.
        **overrides: as for `model.with_spans`: `memory_format`,
            `memory_dtype`, `same_length` …

    Returns:
        The path of the SavedModel.

    Raises:
        ValueError: if the version exists or is not a positive 64-bit
            integer, the tokenizer has more ids than the model, the state is
            unknown or the number of sessions below 1.
        ImportError: if the tokenizer needs what is not installed.
    """
    if state not in STATES:
        raise ValueError(
            f"state must be one of {', '.join(STATES)}; got {state!r}."
        )
    if state == "resident" and num_sessions < 1:
        raise ValueError(
            f"sessions must be 1 or more with state=resident; got "
            f"{num_sessions}."
        )
    if spans is not None or overrides:
        spans = model.spans if spans is None else spans
        model = model.with_spans(spans, **overrides)
    if version is None:
        version = next_version(export_dir)
    is_integer = isinstance(version, int) and not isinstance(version, bool)
    if not is_integer or not 1 <= version < 2**63:
        raise ValueError(
            f"version must be a positive 64-bit integer; got {version!r}."
        )
    path = os.path.join(export_dir, str(version))
    if os.path.exists(path):
        raise ValueError(
            f"version {version} exists in {export_dir}; the next free one is "
            f"{next_version(export_dir)}."
        )
    if tokenizer is not None and tokenizer.vocab_size > model.vocab_size:
        raise ValueError(
            f"tokenizer must have at most the {model.vocab_size} ids of the "
            f"model; got one of {tokenizer.vocab_size}."
        )
    # Not an integer, so TF Serving does not take it for a version.
    temporary = os.path.join(export_dir, f".{version}.incomplete")
    shutil.rmtree(temporary, ignore_errors=True)
    os.makedirs(temporary)
    try:
        module = ServingModule(
            model, tokenizer, num_sessions if state == "resident" else 0
        )
        signatures = module.signatures()
        tf.saved_model.save(
            module,
            temporary,
            signatures=signatures,
            # Nobody trains it, and the gradient of the adaptive softmax has
            # an XLA op in it that a server may not know.
            options=tf.saved_model.SaveOptions(
                experimental_custom_gradients=False
            ),
        )
        extra = os.path.join(temporary, EXTRA_FOLDER)
        os.makedirs(extra)
        write_warmup(extra, signatures, tokenizer)
        if tokenizer is not None:
            file = os.path.join(extra, TOKENIZER_FILE)
            with open(file, "w", encoding="utf-8") as stream:
                json.dump(tokenizer.get_config(), stream)
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return path


def versions(export_dir) -> list[int]:
    """The versions in a folder, in ascending order; none if it is missing."""
    if not os.path.isdir(export_dir):
        return []
    names = (name for name in os.listdir(export_dir) if name.isdecimal())
    return sorted(int(name) for name in names)


def next_version(export_dir) -> int:
    """The version after the highest in a folder, 1 where there is none."""
    return max(versions(export_dir), default=0) + 1


def describe_state(model, num_sessions=0) -> str:
    """Tells in a few lines what a lane's requests carry.

    Args:
        model: a TransformerXLLanguageModel.
        num_sessions: sessions whose memories the server keeps.
    """
    carried = checks.state_bytes(model)
    full = checks.state_bytes(
        model.with_spans(MemorySpans([max(model.spans)] * len(model.spans)))
    )
    lines = [model.spans.diagram()]
    specs = model.memory_specs()
    width = max(map(len, specs)) + 1
    for name, spec in specs.items():
        shape = ", ".join(
            "B" if size is None else str(size) for size in spec.shape
        )
        lines.append(f"{name:<{width}} [{shape}] {spec.dtype}")
    lines.append(
        f"state: {carried / 2**20:.2f} MiB a lane and request; "
        f"{full / 2**20:.2f} MiB with full memory"
    )
    if num_sessions:
        lines.append(
            f"resident: {num_sessions} sessions take "
            f"{num_sessions * carried / 2**20:,.2f} MiB of the server's memory"
        )
    return "\n".join(lines)
