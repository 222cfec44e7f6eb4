"""Batch normalisation as one TensorFlow kernel, where Keras makes several passes over float32 copies.

With other backends it is Keras's own layer. Weights, names and inference are always Keras's own.
"""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable("pipeline")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Normalises (n, h, w, c) maps over their last axis; sums are float32, whatever the type of the maps.

    For the time it saves, see `tests/benchmarks/training_rate.py`. As in that kernel, the running variance is unbiased:
    it is corrected for the degree of freedom of the mean.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not (training and self.trainable and mask is None and self._fits(inputs)):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        unused = tf.zeros([0])  # the running statistics, which training does not read
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=unused,
            variance=unused,
            epsilon=self.epsilon,
            is_training=True,
        )
        for moving, present in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + present * (1.0 - self.momentum))
        return outputs

    def _fits(self, inputs: Any) -> bool:
        """True if the kernel can do this: it works on the last axis only, and always scales and shifts."""
        plain = self.scale and self.center and not self.renorm and not self.synchronized
        maps = len(inputs.shape) == 4 and self.axis in (-1, 3)
        return bool(keras.backend.backend() == "tensorflow" and maps and plain)
