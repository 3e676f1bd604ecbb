"""Fast paths of one backend, each with a portable twin."""

from official_lrm.kernels.row_buffer import empty_rows, set_rows, take_rows

__all__ = ["empty_rows", "set_rows", "take_rows"]
