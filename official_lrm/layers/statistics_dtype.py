"""The dtype of what half precision is too coarse for."""


def statistics_dtype(compute_dtype: str) -> str:
    """Of softmaxes and distances: float32, or float64 where that computes.

    Args:
        compute_dtype: name of a float dtype.
    """
    return "float64" if compute_dtype == "float64" else "float32"
