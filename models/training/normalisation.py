"""Batch normalisation that is one kernel with TensorFlow: what Keras does in several passes over float32 copies.

With other backends it is Keras's layer as it is. Weights, names and inference are Keras's own everywhere.
"""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable("pipeline")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Normalises (n, h, w, c) maps over their last axis; sums are float32 whatever the maps are.

    What that saves: `tests/benchmarks/training_rate.py`. As that kernel does, the running variance is corrected for the
    degree of freedom that the mean takes.
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
        """Whether the kernel computes what was asked for: it has no other axis, and always scales and shifts."""
        plain = self.scale and self.center and not self.renorm and not self.synchronized
        maps = len(inputs.shape) == 4 and self.axis in (-1, 3)
        return bool(keras.backend.backend() == "tensorflow" and maps and plain)
