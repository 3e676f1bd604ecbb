"""Holds the direction of imports, and what `import official_lrm` loads.

```
memory -> kernels -> layers -> models -> tasks, serving, checkpoints -> training
```

A file imports what stands left of it, or its own folder. `configs` and `data`
know no model; only tasks and what stands right of them, and the two
themselves, import them. `progress` stands left of all that is not portable.
"""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

import official_lrm

PACKAGE = pathlib.Path(official_lrm.__file__).parent

_LEFT = {
    "memory": set(),
    "kernels": {"memory"},
    "layers": {"memory", "kernels"},
    "models": {"memory", "kernels", "layers"},
}
_BELOW_TASKS = {*_LEFT, "configs", "data"}
ALLOWED = {
    **_LEFT,
    "configs": {"memory", "data"},
    "data": {"memory", "configs", "progress"},
    "tasks": _BELOW_TASKS,
    "serving": _BELOW_TASKS,
    "checkpoints": _BELOW_TASKS,
    "training": _BELOW_TASKS | {"progress", "tasks", "serving", "checkpoints"},
}
# They import Keras only, and so run on all its backends.
PORTABLE = {"memory", "layers", "models"}
PORTABLE_ROOTS = {"keras", "numpy"}
# These stand right of the whole package.
OUTSIDE = {"tools", "export", "tests"}


def imported_modules(source, package):
    """Names of the modules that a source text may import, with their lines.

    Args:
        source: the text.
        package: dotted name of the package that it is in, for relative
            imports.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, base]).rstrip(".")
            if base == "official_lrm":
                # Its names are folders, or what it re-exports from them.
                for alias in node.names:
                    yield f"{base}.{alias.name}", node.lineno
            else:
                yield base, node.lineno
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func)
            in ("importlib.import_module", "import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value), node.lineno


def violations(source, path):
    """What the imports of a file do that they must not.

    Args:
        source: text of the file.
        path: of the file, from the package's folder: "layers/block.py".
    """
    *folders, file = pathlib.PurePosixPath(path).parts
    if not folders:  # __init__.py, which re-exports from all folders.
        return
    folder = folders[0]
    if folder not in ALLOWED:
        yield f"{path}: {folder} has no place in the direction of imports"
        return
    package = ".".join(["official_lrm", *folders])
    # The one file that needs no framework.
    is_spans = (folder, file) == ("memory", "spans.py")
    for name, line in imported_modules(source, package):
        root, _, rest = name.partition(".")
        if root == "official_lrm":
            target = rest.partition(".")[0]
            allowed = target == folder or target in ALLOWED[folder]
        else:
            allowed = root not in OUTSIDE and (
                folder not in PORTABLE or root in PORTABLE_ROOTS
            )
        if is_spans:
            allowed = False
        if not allowed and root not in sys.stdlib_module_names:
            yield f"{path}:{line}: {folder} must not import {name}"


def test_imports_of_the_package_go_one_way():
    paths = sorted(PACKAGE.rglob("*.py"))
    assert PACKAGE / "memory" / "spans.py" in paths
    found = [
        violation
        for path in paths
        for violation in violations(
            path.read_text(encoding="utf-8"),
            path.relative_to(PACKAGE).as_posix(),
        )
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source", "name"),
    [
        (
            "layers/a.py",
            "from official_lrm.models.b import C",
            "official_lrm.models.b",
        ),
        ("layers/a.py", "from ..models import C", "official_lrm.models"),
        ("layers/a.py", "from .. import models", "official_lrm.models"),
        ("layers/a.py", "import official_lrm", "official_lrm"),
        ("layers/a.py", "import official_lrm as lrm", "official_lrm"),
        (
            "layers/a.py",
            "from official_lrm import TransformerXL",
            "official_lrm.TransformerXL",
        ),
        (
            "layers/a.py",
            "def f():\n  import official_lrm.tasks.b",
            "official_lrm.tasks.b",
        ),
        (
            "layers/a.py",
            "import importlib\nimportlib.import_module('official_lrm.models')",
            "official_lrm.models",
        ),
        (
            "layers/a/b.py",
            "from ...models.c import D",
            "official_lrm.models.c",
        ),
        (
            "memory/a.py",
            "from official_lrm.kernels import b",
            "official_lrm.kernels",
        ),
        (
            "kernels/a.py",
            "from official_lrm.layers import b",
            "official_lrm.layers",
        ),
        ("models/a.py", "from official_lrm import data", "official_lrm.data"),
        (
            "models/a.py",
            "import official_lrm.configs",
            "official_lrm.configs",
        ),
        (
            "tasks/a.py",
            "from official_lrm.serving import b",
            "official_lrm.serving",
        ),
        (
            "tasks/a.py",
            "from official_lrm.training import b",
            "official_lrm.training",
        ),
        ("data/a.py", "from official_lrm import layers", "official_lrm.layers"),
        (
            "data/a.py",
            "from official_lrm.models import b",
            "official_lrm.models",
        ),
        (
            "configs/a.py",
            "from official_lrm.checkpoints import b",
            "official_lrm.checkpoints",
        ),
        (
            "configs/a.py",
            "from official_lrm.kernels import b",
            "official_lrm.kernels",
        ),
        ("training/a.py", "from tools import train", "tools"),
        ("training/a.py", "import export.client", "export.client"),
        ("memory/a.py", "import tensorflow as tf", "tensorflow"),
        ("layers/a.py", "from tensorflow.python import b", "tensorflow.python"),
        ("models/a.py", "import tf_keras", "tf_keras"),
        (
            "models/a.py",
            "def f():\n  from official.core import b",
            "official.core",
        ),
        ("models/a.py", "try:\n  import jax\nexcept E:\n  pass", "jax"),
        ("memory/spans.py", "import keras", "keras"),
        ("memory/spans.py", "import numpy as np", "numpy"),
        (
            "memory/spans.py",
            "from official_lrm.memory import state",
            "official_lrm.memory",
        ),
        ("memory/spans.py", "from . import state", "official_lrm.memory"),
    ],
)
def test_a_wrong_import_is_found(path, source, name):
    found = list(violations(source, path))
    assert len(found) == 1
    folder = path.partition("/")[0]
    assert found[0].startswith(f"{path}:")
    assert found[0].endswith(f": {folder} must not import {name}")


def test_a_folder_that_nobody_placed_is_found():
    found = list(violations("", "helpers/a.py"))
    assert found == [
        "helpers/a.py: helpers has no place in the direction of imports"
    ]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("__init__.py", "from official_lrm.models import TransformerXL"),
        ("memory/spans.py", "import operator\nfrom collections import abc"),
        ("memory/state.py", "import keras\nfrom official_lrm.memory import b"),
        ("memory/state.py", "from .spans import MemorySpans"),
        ("kernels/a.py", "import tensorflow as tf\nimport jax"),
        ("layers/a.py", "from official_lrm import kernels, memory"),
        ("models/a.py", "import keras, numpy, json, zipfile"),
        ("configs/a.py", "from official_lrm.memory.spans import MemorySpans"),
        ("configs/a.py", "from official.core import exp_factory"),
        ("tasks/a.py", "from official_lrm import configs, data, models"),
        ("serving/a.py", "import tensorflow as tf"),
        ("training/a.py", "from official_lrm import tasks, checkpoints"),
        ("data/a.py", "'import official_lrm.models'  # Only a text."),
    ],
)
def test_a_right_import_passes(path, source):
    assert list(violations(source, path)) == []


class TestImport:
    """What `import official_lrm` does, in a process of its own."""

    @pytest.fixture(scope="class")
    def imported(self, tmp_path_factory):
        report = tmp_path_factory.mktemp("import") / "modules"
        program = (
            "import official_lrm, sys\n"
            f"open({str(report)!r}, 'w').write('\\n'.join(sys.modules))\n"
        )
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
            ).rstrip(os.pathsep),
        }
        # Set by the import in this process, and so inherited.
        environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
        run = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert run.returncode == 0, run.stderr
        return run, report.read_text().splitlines()

    def test_it_prints_nothing(self, imported):
        run, _ = imported
        assert (run.stdout, run.stderr) == ("", "")

    def test_it_loads_no_data_sets_and_no_model_garden(self, imported):
        _, modules = imported
        assert "official_lrm.models" in modules
        roots = {name.partition(".")[0] for name in modules}
        assert not roots & {
            "tensorflow_datasets",
            "tensorflow_text",
            "official",
            "orbit",
            "tf_keras",
        }

    def test_folders_on_tensorflow_load_when_first_asked_for(self, imported):
        _, modules = imported
        folders = {
            name.split(".")[1]
            for name in modules
            if name.startswith("official_lrm.")
        }
        assert folders == {"memory", "layers", "models"} | (
            folders & {"kernels"}
        )


def test_every_name_of_the_public_surface_is_there():
    for name in official_lrm.__all__:
        assert getattr(official_lrm, name) is not None
    assert {
        "MemorySpans",
        "TransformerXL",
        "TransformerXLLanguageModel",
    } <= set(official_lrm.__all__)


def test_serving_is_an_attribute():
    assert official_lrm.serving.__name__ == "official_lrm.serving"
    assert "serving" in dir(official_lrm)


def test_another_attribute_is_not():
    with pytest.raises(AttributeError, match="'official_lrm' has no .*'tools'"):
        _ = official_lrm.tools
