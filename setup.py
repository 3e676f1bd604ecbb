"""Packaging of official_lrm. Metadata lives here, tool settings in pyproject.

The tested tree is pinned in constraints.txt: `make install` applies it.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version():
    """Reads `__version__` as text: importing would need TensorFlow."""
    source = ROOT / "official_lrm" / "__init__.py"
    match = re.search(
        r'^__version__ = "([^"]+)"$',
        source.read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    if match is None:
        raise RuntimeError(f'{source} has no line `__version__ = "..."`.')
    return match.group(1)


def read_long_description():
    """Returns the README, or nothing where a partial checkout lacks it."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


# Compiles training steps for real TPUs on a machine that has none.
TPU_COMPILE = ["jax[tpu]==0.10.2"]

# What tools/benchmark.py compares with, in a virtual environment of its own:
# the last transformers that have TransfoXL.
BENCHMARK_PEERS = ["torch==2.13.0", "transformers==4.35.2"]

setup(
    name="official_lrm",
    version=read_version(),
    description=(
        "Transformer-XL with one memory span per layer, for TensorFlow's "
        "Model Garden and Keras 3."
    ),
    long_description=read_long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    # TensorFlow 2.20 itself runs on more versions; the pinned tree needs 3.11
    # at least and has been tested on nothing newer.
    python_requires=">=3.11,<3.12",
    packages=find_packages(include=["official_lrm", "official_lrm.*"]),
    package_data={
        "official_lrm": ["**/*.txt", "**/*.json", "**/*.tsv", "**/*.yaml"]
    },
    install_requires=[
        "absl-py",
        "keras>=3.15,<4",
        # Of tools/benchmark.py --plot; tf-models-official brings it anyway.
        "matplotlib",
        "numpy",
        "requests",
        "safetensors",
        "sentencepiece",
        "tensorflow>=2.20,<2.21",
        "tensorflow-datasets",
        # Messages of TensorFlow Serving, for export/client.py.
        "tensorflow-serving-api>=2.20,<2.21",
        "tensorflow-text>=2.20,<2.21",
        "tf-models-official>=2.20,<2.21",
    ],
    extras_require={
        "benchmark": BENCHMARK_PEERS,
        "tpu-compile": TPU_COMPILE,
        "test": [
            # tfds.testing imports it without asking for it.
            "dill",
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "ruff",
            *TPU_COMPILE,
        ],
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
