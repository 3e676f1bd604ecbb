"""What `tools/compile_for_tpu.py` sets before anything imports keras or jax."""

import importlib.util
import os

# libtpu looks for a TPU's metadata for a minute, and locks itself to one
# process, unless it is told otherwise.
_ENVIRONMENT = {
    "KERAS_BACKEND": "jax",
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def set_environment():
    """Chooses Keras's JAX backend and tells libtpu that there is no TPU."""
    os.environ.update(_ENVIRONMENT)


def check_environment():
    """Refuses to go on without the compiler.

    Raises:
        ImportError: saying what to install.
    """
    for package in ("jax", "libtpu"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(
                f"compiling for TPUs needs {package}: "
                "pip install official_lrm[tpu-compile]"
            )
