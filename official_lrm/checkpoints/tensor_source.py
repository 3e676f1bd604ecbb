"""Tensors of a checkpoint, each of which must be accounted for."""

import numpy as np


class TensorSource:
    """Hands out the tensors of a checkpoint by name and keeps the books.

    Args:
        tensors: mapping of name to array; PyTorch tensors will do.
        what: names the checkpoint in errors.
    """

    def __init__(self, tensors, what):
        self._tensors = tensors
        self._what = what
        self._uses = {}

    def __contains__(self, name):
        return name in self._tensors

    def take(self, names, shape):
        """Returns a tensor that may be stored under several names.

        Args:
            names: of one and the same tensor; what is stored under more than
                one of them must be equal.
            shape: that it must have.

        Returns:
            A NumPy array.

        Raises:
            ValueError: if it is missing, of another shape, not of finite
                floating point numbers, or differs between its names.
        """
        present = [name for name in names if name in self._tensors]
        if not present:
            others = f" (or {', '.join(names[1:3])})" if names[1:] else ""
            raise ValueError(
                f"{self._what} lacks the tensor {names[0]}{others} of shape "
                f"{list(shape)}."
            )
        first, *aliases = present
        value = self._read(first, shape)
        self._uses[first] = "used"
        for name in aliases:
            if not np.array_equal(self._read(name, shape), value):
                raise ValueError(
                    f"{self._what} has different values in {first} and {name}, "
                    "which the config says are one tensor."
                )
            self._uses[name] = f"the same as {first}"
        return value

    def skip(self, is_skipped, reason):
        """Accounts for tensors that are not needed.

        Args:
            is_skipped: function of a name.
            reason: why they are not.
        """
        for name in self._tensors:
            if name not in self._uses and is_skipped(name):
                self._uses[name] = f"skipped: {reason}"

    def skip_equal(self, name, expected, reason):
        """Accounts for a tensor, if it is there, that holds what is computed.

        Args:
            name: of the tensor.
            expected: array of what it must hold, to a percent: checkpoints
                are in half precision too.
            reason: why it is not needed.

        Raises:
            ValueError: if it holds anything else.
        """
        if name not in self._tensors:
            return
        if not np.allclose(self._read(name, expected.shape), expected, 1e-2, 0):
            raise ValueError(
                f"{self._what} has other values in {name} than a "
                f"Transformer-XL of this size ({reason})."
            )
        self._uses[name] = f"skipped: {reason}"

    def finish(self):
        """Ends the books.

        Returns:
            A dict: for each name "used", "the same as NAME" or "skipped:
            REASON", in the order of the checkpoint.

        Raises:
            ValueError: if a tensor was neither used nor skipped.
        """
        left = [name for name in self._tensors if name not in self._uses]
        if left:
            more = f" and {len(left) - 1} more" if len(left) > 1 else ""
            raise ValueError(
                f"{self._what} has the tensor {left[0]}{more}, which a model "
                "of this config has no place for."
            )
        return {name: self._uses[name] for name in self._tensors}

    def _read(self, name, shape):
        value = self._tensors[name]
        if hasattr(value, "detach"):  # PyTorch; NumPy has no bfloat16.
            value = value.detach().cpu()
            if "bfloat16" in str(value.dtype):
                value = value.float()
            value = value.numpy()
        value = np.asarray(value)
        if value.shape != tuple(shape):
            raise ValueError(
                f"{self._what} has {name} of shape {list(value.shape)}; the "
                f"config calls for {list(shape)}."
            )
        # bfloat16 arrays are of ml_dtypes, which NumPy takes for no float.
        if value.dtype.name == "bfloat16":
            value = value.astype("float32")
        if not np.issubdtype(value.dtype, np.floating):
            raise ValueError(
                f"{self._what} has {name} of dtype {value.dtype}; weights are "
                "floating point numbers."
            )
        if not np.isfinite(value).all():
            raise ValueError(
                f"{self._what} has values in {name} that are not finite."
            )
        return value
