"""Examples to batches: one `tf.data` pipeline from table to uint8 images, in an order that is a function.

Position p of the whole run belongs to step p // batch_size. An epoch's last batch is filled up with places
that hold no example, so that batches never cross epochs; they are dropped again before anyone sees them.
So resuming at a step is a range that starts later, and the next epoch's first images are decoded while the
last epoch is still being validated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from model_trainer.pipeline.augment import Augmentation, Crop, augment_image, split_crop
from model_trainer.pipeline.bad_images import BadImages
from model_trainer.pipeline.fallback import map_with_fallback
from model_trainer.pipeline.image import exact_image, fast_image
from model_trainer.pipeline.order import epoch_seeds, example_seed, shuffled_index
from model_trainer.sources.examples import Examples
from model_trainer.specs import ModelSpec

__all__ = ["Pipeline", "num_steps"]


def num_steps(num_examples: int, batch_size: int) -> int:
    """Batches in one pass over the examples; the last may be smaller."""
    return -(-num_examples // batch_size)


@dataclass(frozen=True)
class Pipeline:
    """Turns examples into batches `(images, labels, weights)`.

    images: uint8 `(batch, height, width, channels)`; labels: int32 `(batch,)`; weights: float32 `(batch,)`.
    An image that cannot be read keeps its place: its pixels and its weight are 0.

    Attributes:
        examples: the table.
        spec: says the size and how an image gets it.
        batch_size: images in a step, over all devices together.
        num_replicas: devices; each global batch comes as that many batches, one after the other, whose sizes
            differ by one at most.
        bad_images: is told of each unreadable image.
        augment: what happens to a training image; only `training` uses it.
        seed: of order and augmentation.
    """

    examples: Examples
    spec: ModelSpec
    batch_size: int
    bad_images: BadImages
    num_replicas: int = 1
    augment: Sequence[Augmentation] = ()
    seed: int = 0

    def training(self, epochs: int, first_step: int = 0) -> tf.data.Dataset:
        """Every epoch's batches in one stream, from `first_step` of the run on."""
        steps = num_steps(len(self.examples), self.batch_size)
        seeds = tf.constant(epoch_seeds(self.seed, epochs), tf.uint32)
        crop, rest = split_crop(self.augment)

        def place(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            epoch, within = position // (steps * self.batch_size), position % (steps * self.batch_size)
            # Past the end there is no example; the shuffle still wants a position that exists.
            exists = within < len(self.examples)
            index = shuffled_index(tf.where(exists, within, 0), seeds[epoch], len(self.examples))
            return tf.where(exists, index, -1), example_seed(self.seed, epoch, within)

        def finish(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            return augment_image(image, rest, seed)

        start, stop = first_step * self.batch_size, epochs * steps * self.batch_size
        return self._batches(start, stop, place, crop, finish)

    def validation(self) -> tf.data.Dataset:
        """One pass in the table's own order, without chance."""
        steps = num_steps(len(self.examples), self.batch_size)

        def place(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return tf.where(position < len(self.examples), position, -1), tf.zeros(2, tf.int32)

        return self._batches(0, steps * self.batch_size, place, None, lambda image, seed: image)

    def _batches(
        self,
        start: int,
        stop: int,
        place: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
        crop: Crop | None,
        finish: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    ) -> tf.data.Dataset:
        """Batches of the positions from `start` to `stop`.

        Args:
            place: position to the example's row (-1 where there is none) and its seed.
            crop: for the decoder.
            finish: what else happens to an image, by its seed.
        """
        paths = tf.constant([os.fsencode(path) for path in self.examples.paths])
        labels = tf.constant(self.examples.labels)
        weights = tf.constant(self.examples.weights)
        blank = tf.zeros(self.spec.target_size, tf.uint8)

        def fast(position: tf.Tensor) -> tuple[tf.Tensor, ...]:
            row, seed = place(position)

            def load() -> tuple[tf.Tensor, ...]:
                image = finish(fast_image(paths[row], self.spec, crop=crop, seed=seed), seed)
                return tf.ensure_shape(image, blank.shape), labels[row], weights[row], True

            return tf.cond(row >= 0, load, lambda: (blank, 0, 0.0, False))

        def exact(position: tf.Tensor) -> tuple[tf.Tensor, ...]:
            row, seed = place(position)
            image, readable = exact_image(paths[row], self.spec, crop=crop, seed=seed)
            noted = tf.cond(readable, lambda: True, lambda: self._note_bad(paths[row]))
            with tf.control_dependencies([noted]):
                weight = weights[row] * tf.cast(readable, tf.float32)
            return tf.ensure_shape(finish(image, seed), blank.shape), labels[row], weight, True

        batches = (
            map_with_fallback(start, stop, fast, exact)
            .batch(self.batch_size, drop_remainder=True)
            .flat_map(self._for_each_replica)
            .prefetch(tf.data.AUTOTUNE)
        )
        options = tf.data.Options()
        options.deterministic = True
        # Sharding is ours: the order says who gets what.
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return batches.with_options(options)

    def _for_each_replica(
        self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, exists: tf.Tensor
    ) -> tf.data.Dataset:
        count = tf.reduce_sum(tf.cast(exists, tf.int32))  # the places without example stand at the end
        if self.num_replicas == 1:
            return tf.data.Dataset.from_tensors((images[:count], labels[:count], weights[:count]))
        # A replica without any image would give batch normalisation nothing to average: it gets one without weight.
        wanted = tf.maximum(count, self.num_replicas)
        weights = tf.where(tf.range(self.batch_size) < count, weights, 0.0)

        def part(replica: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            start, stop = self._share(replica, wanted), self._share(replica + 1, wanted)
            rows = tf.range(start, stop)
            source = tf.where(rows < count, rows, 0)
            return tf.gather(images, source), tf.gather(labels, source), tf.gather(weights, rows)

        return tf.data.Dataset.range(self.num_replicas, output_type=tf.int32).map(part)

    def _share(self, replica: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """Where the rows of `replica` begin; the first replicas take one more when it does not divide evenly."""
        size, more = count // self.num_replicas, count % self.num_replicas
        return replica * size + tf.minimum(replica, more)

    def _note_bad(self, path: tf.Tensor) -> tf.Tensor:
        def note(raw: bytes) -> bool:
            self.bad_images.add(os.fsdecode(raw))
            return True

        noted = tf.numpy_function(note, [path], tf.bool)
        noted.set_shape(())
        return noted
