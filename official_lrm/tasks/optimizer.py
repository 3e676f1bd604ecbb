"""Adam and its schedule, as the published runs used them."""

import math

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable("official_lrm")
class SummedGradientAdam(keras.optimizers.Adam):
    """Adam for gradients that are summed over the replicas already.

    Keras's optimizers clip first and sum over replicas afterwards. The
    gradient must be summed, then clipped, then applied; so the caller does
    the first two, and this class leaves out Keras's own sum.

    On TensorFlow a variable is updated in one pass, by TensorFlow's own Adam,
    instead of a dozen.
    """

    def update_step(self, gradient, variable, learning_rate):
        """Updates a variable in place."""
        if keras.backend.backend() != "tensorflow":
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        if isinstance(variable, keras.Variable):
            variable = variable.value
        dtype = variable.dtype
        steps = ops.cast(self.iterations + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=ops.power(ops.cast(self.beta_1, dtype), steps),
            beta2_power=ops.power(ops.cast(self.beta_2, dtype), steps),
            lr=ops.cast(learning_rate, dtype),
            beta1=ops.cast(self.beta_1, dtype),
            beta2=ops.cast(self.beta_2, dtype),
            epsilon=ops.cast(self.epsilon, dtype),
            grad=ops.cast(gradient, dtype),
        )

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars


@keras.saving.register_keras_serializable("official_lrm")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then a cosine down to `alpha` of the peak.

    At step s: `warmup + s / warmup_steps * (c(warmup_steps) - warmup)` below
    `warmup_steps`, then
    `c(s) = peak * (alpha + (1 - alpha) * (1 + cos(pi * p)) / 2)` with
    `p = clip((s - offset) / decay_steps, 0, 1)`. These are Model Garden's
    `linear` warm-up and `cosine`, as a Keras 3 schedule.

    Args:
        learning_rate: the peak.
        warmup_steps: steps of linear growth, 0 = none.
        warmup_learning_rate: where it starts.
        decay_steps: steps of the cosine.
        offset: the step at which the cosine begins.
        alpha: the last learning rate as a fraction of the peak.
    """

    def __init__(
        self,
        learning_rate,
        warmup_steps,
        warmup_learning_rate,
        decay_steps,
        offset,
        alpha,
    ):
        super().__init__()
        self._config = {
            "learning_rate": learning_rate,
            "warmup_steps": warmup_steps,
            "warmup_learning_rate": warmup_learning_rate,
            "decay_steps": decay_steps,
            "offset": offset,
            "alpha": alpha,
        }

    def __call__(self, step):
        """Learning rate at `step`, a scalar; returns a float32 scalar."""
        config = self._config
        step = ops.cast(step, "float32")
        rate = self._cosine(step)
        warmup_steps = config["warmup_steps"]
        if not warmup_steps:
            return rate
        start = config["warmup_learning_rate"]
        end = self._cosine(ops.cast(warmup_steps, "float32"))
        warmup = start + step / warmup_steps * (end - start)
        return ops.where(step < warmup_steps, warmup, rate)

    def _cosine(self, step):
        config = self._config
        progress = ops.clip(
            (step - config["offset"]) / config["decay_steps"], 0.0, 1.0
        )
        cosine = (1.0 + ops.cos(math.pi * progress)) / 2.0
        alpha = config["alpha"]
        return config["learning_rate"] * (alpha + (1.0 - alpha) * cosine)

    def get_config(self):
        """Returns the constructor's arguments."""
        return dict(self._config)
