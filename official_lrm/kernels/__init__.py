"""Fast paths of one backend, each with a portable twin."""

from official_lrm.kernels.computed_again import computed_again
from official_lrm.kernels.dropout_mask import dropout_mask
from official_lrm.kernels.hide import hide
from official_lrm.kernels.product_less import product_less
from official_lrm.kernels.product_per_head import product_per_head
from official_lrm.kernels.relu_gradient import relu_gradient
from official_lrm.kernels.row_buffer import empty_rows, set_rows, take_rows
from official_lrm.kernels.softmax_precision import softmax_of_bfloat16_is_wide
from official_lrm.kernels.tensordot import tensordot

__all__ = [
    "computed_again",
    "dropout_mask",
    "empty_rows",
    "hide",
    "product_less",
    "product_per_head",
    "relu_gradient",
    "set_rows",
    "softmax_of_bfloat16_is_wide",
    "take_rows",
    "tensordot",
]
