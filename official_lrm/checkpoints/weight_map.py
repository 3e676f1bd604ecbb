"""Where the tensors of a checkpoint lie in the model's weights."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from keras import ops


@dataclasses.dataclass(frozen=True)
class MappedTensor:
    """One tensor of a checkpoint and its places in the model.

    Attributes:
        names: that it may be stored under; the first is the usual one.
        places: each a list of NumPy views of WeightViews whose concatenation
            is the tensor; all places hold the same values.
        axis: along which the views of a place are concatenated.
    """

    names: Sequence[str]
    places: Sequence[Sequence[np.ndarray]]
    axis: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        views = self.places[0]
        shape = list(views[0].shape)
        shape[self.axis] = sum(view.shape[self.axis] for view in views)
        return tuple(shape)

    def read(self) -> np.ndarray:
        """The tensor that the model holds, a new array."""
        return np.concatenate(self.places[0], axis=self.axis)

    def write(self, value):
        """Writes the tensor to all its places."""
        for views in self.places:
            sizes = [view.shape[self.axis] for view in views]
            parts = np.split(value, np.cumsum(sizes)[:-1], axis=self.axis)
            for view, part in zip(views, parts, strict=True):
                view[...] = part


class WeightViews:
    """NumPy copies of a model's weights, which views can be taken of.

    A transposed or sliced view stands for the tensor of a checkpoint: reading
    it gives what a checkpoint would hold, writing it sets the weight.

    Args:
        model: a TransformerXLLanguageModel.
        blank: whether to start from NaN instead of the weights' values.
    """

    def __init__(self, model, blank=False):
        self._weights = model.weights
        self._arrays = {
            id(weight): (
                np.full(weight.shape, np.nan, weight.dtype)
                if blank
                else np.array(ops.convert_to_numpy(weight))
            )
            for weight in self._weights
        }

    def __call__(self, weight) -> np.ndarray:
        """The array of a weight; contiguous, so that it reshapes to views."""
        return self._arrays[id(weight)]

    def assign(self):
        """Sets the model's weights, all of which must have been written."""
        for weight in self._weights:
            value = self._arrays[id(weight)]
            if np.isnan(value).any():
                raise AssertionError(f"{weight.path} was not converted.")
            weight.assign(value)
