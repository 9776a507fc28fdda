"""Examples to batches: one `tf.data` pipeline from the table of examples to uint8 images, in a stateless order.

Position p of the run belongs to step p // batch_size. An epoch's last batch is padded with positions that hold no
example, so that no batch crosses an epoch; the padding is dropped before the batch leaves the pipeline.
With several processes each one reads its own rows of every batch.
Resuming at a step only means that the range of positions starts later. The first images of the next epoch are decoded
while the current one is still being validated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from model_trainer.pipeline.augment import Augmentation, Stages, augment_image, split_augment
from model_trainer.pipeline.augment.augmentation import MIN_WEIGHT
from model_trainer.pipeline.bad_images import BadImages
from model_trainer.pipeline.batch import Batch
from model_trainer.pipeline.batches import for_each_device, mix
from model_trainer.pipeline.fallback import map_with_fallback
from model_trainer.pipeline.image import exact_image, fast_image
from model_trainer.pipeline.labels import make_label_reader
from model_trainer.pipeline.order import epoch_seeds, example_seed, shuffled_index
from model_trainer.pipeline.read import make_readers
from model_trainer.pipeline.sampling import EachOnce, Sampling, make_sampler
from model_trainer.pipeline.shard import BatchShard, Division
from model_trainer.pipeline.view import View
from model_trainer.sources.examples import Examples
from model_trainer.specs import ModelSpec

__all__ = ["Pipeline", "num_steps"]

# AutoGraph would parse the source of every function, which takes longer than tracing it.
WITHOUT_AUTOGRAPH = tf.autograph.experimental.do_not_convert

Order = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]  # from a position to its example's index and seed


def num_steps(num_examples: int, batch_size: int) -> int:
    """Batches in one pass over the examples; the last one may be smaller."""
    return -(-num_examples // batch_size)


@dataclass(frozen=True)
class Pipeline:
    """Turns examples into batches, see `Batch`. An image that cannot be read keeps its row, with weight 0.

    Attributes:
        examples: the table of examples.
        spec: the target size, and how an image is resized to it.
        batch_size: images in a step, over all devices together.
        share: the rows of a batch that this process reads. If the process has several devices, the dataset yields one
            element per device for each batch, one after the other, whose sizes differ by at most one.
        bad_images: collects the images that cannot be read.
        augment: augmentations of the training images; `validation` ignores them.
        sampling: which images an epoch of training contains.
        seed: of order and augmentation.
    """

    examples: Examples
    spec: ModelSpec
    batch_size: int
    bad_images: BadImages
    shard: BatchShard = field(default_factory=BatchShard)
    augment: Sequence[Augmentation] = ()
    sampling: Sampling = field(default_factory=EachOnce)
    seed: int = 0

    def training(self, epochs: int, first_step: int = 0) -> tf.data.Dataset:
        """The batches of all epochs in one dataset, starting at `first_step` of the run."""
        last_step = epochs * num_steps(len(self.examples), self.batch_size)
        return self._batches(first_step, last_step, self._training_order(epochs), split_augment(self.augment))

    def beginnings(self, epochs: int, first_epoch: int, count: int, last_count: int) -> tf.data.Dataset:
        """The batches that follow the end of each epoch, in one dataset: batch norm statistics are refreshed with them.

        Args:
            epochs: of the run.
            first_epoch: the first epoch after which there are batches.
            count: how many after each epoch but the last: the first ones of the epoch that follows.
            last_count: how many after the last epoch: the first ones of one more epoch, which is not trained.
        """
        per_epoch = num_steps(len(self.examples), self.batch_size)

        def step_of(number: tf.Tensor) -> tf.Tensor:
            epoch = tf.minimum(number // count, epochs - 1)
            return (epoch + 1) * per_epoch + number - epoch * count

        start, stop = first_epoch * count, (epochs - 1) * count + last_count
        order, stages = self._training_order(epochs + 1), split_augment(self.augment)
        return self._batches(start, stop, order, stages, step_of=step_of)

    def shown(self, epochs: int) -> np.ndarray:
        """int64 `(epochs * num_examples,)`: the indices of the examples in the order of `training`."""
        order = self._training_order(epochs)
        positions = tf.data.Dataset.range(epochs * self._rows_per_epoch)
        indices = np.fromiter(
            positions.map(WITHOUT_AUTOGRAPH(lambda position: order(position)[0])).as_numpy_iterator(), np.int64
        )
        return indices[indices >= 0]

    @property
    def _rows_per_epoch(self) -> int:
        return num_steps(len(self.examples), self.batch_size) * self.batch_size

    def _training_order(self, epochs: int) -> Order:
        seeds = tf.constant(epoch_seeds(self.seed, epochs), tf.uint32)
        sample = make_sampler(self.examples, self.sampling, self.seed)

        def order(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            epoch, within = position // self._rows_per_epoch, position % self._rows_per_epoch
            # Past the end there is no example; the shuffle still needs a valid position.
            exists = within < len(self.examples)
            index = shuffled_index(tf.where(exists, within, 0), seeds[epoch], len(self.examples))
            if sample is not None:
                index = sample(epoch, index)
            return tf.where(exists, index, -1), example_seed(self.seed, epoch, within)

        return order

    def validation(self, passes: int = 1) -> tf.data.Dataset:
        """Every image once, in the order of the table and without augmentation; `passes` times in a row."""

        def order(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return tf.where(position < len(self.examples), position, -1), tf.zeros(2, tf.int32)

        return self._batches(0, num_steps(len(self.examples), self.batch_size), order, split_augment(()), passes)

    def in_step(self, step: int, epochs: int) -> np.ndarray:
        """int64 `(size,)`: the index of each example in a step of `training`, over all processes."""
        order, start = self._training_order(epochs), step * self.batch_size
        indices = [int(order(tf.constant(start + row, tf.int64))[0]) for row in range(self.batch_size)]
        return np.array([index for index in indices if index >= 0], np.int64)

    def _batches(
        self,
        start: int,
        stop: int,
        order: Order,
        stages: Stages,
        passes: int = 1,
        step_of: Callable[[tf.Tensor], tf.Tensor] = lambda number: number,
    ) -> tf.data.Dataset:
        """The batches of the steps from `start` to `stop - 1`, `passes` times.

        Args:
            order: from a position to the example's index (-1 for padding) and its seed.
            stages: the augmentations of images and batches.
            step_of: from a number in `start` to `stop - 1` to its step; the number itself by default.
        """
        division = Division(self.shard, self.batch_size, len(self.examples), with_partners=bool(stages.batch))
        readers = make_readers(self.examples, self.bad_images.fail)
        label_of = make_label_reader(self.examples)
        weights = tf.constant(np.maximum(self.examples.weights, MIN_WEIGHT))
        crops = None if self.examples.crops is None else tf.constant(self.examples.crops)
        view, blank = View(self.spec, stages.crop), tf.zeros(self.spec.target_size, tf.uint8)

        def finish(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(augment_image(image, stages.image, seed), blank.shape)

        def look_up(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            step, row = step_of(number // division.slots), number % division.slots
            position, has_row, in_batch = division.position(step * division.slots + row)
            index, seed = order(position)
            return tf.where(has_row, index, -1), seed, tf.cast(in_batch, tf.float32)

        def fast(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
            index, seed, in_batch = look_up(number)

            def load() -> tuple[tf.Tensor, ...]:
                region = None if crops is None else crops[index]
                image = fast_image(readers.fast(index), view, region=region, seed=seed)
                return finish(image, seed), weights[index] * in_batch, True

            image, weight, exists = tf.cond(index >= 0, load, lambda: (blank, 0.0, False))
            return image, label_of(index), weight, exists

        def exact(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
            index, seed, in_batch = look_up(number)
            exists, index = index >= 0, tf.maximum(index, 0)  # `fast` never fails for padding, but both treat it alike
            region = None if crops is None else crops[index]
            image, readable = exact_image(readers.safe(index), view, region=region, seed=seed)
            recorded = tf.cond(readable, lambda: True, lambda: self._record_bad(index))
            with tf.control_dependencies([recorded]):
                weight = weights[index] * in_batch * tf.cast(readable & exists, tf.float32)
            # A blank image is not augmented, so that it stays blank.
            image = tf.cond(readable, lambda: finish(image, seed), lambda: blank)
            return image, label_of(index), weight, exists

        size = division.slots
        options: dict[str, Any] = {}
        if (ahead := readers.ahead) is not None:
            options["ahead"] = lambda numbers, number_of: ahead(numbers, lambda each: look_up(number_of(each))[0])
        images = map_with_fallback(start * size, stop * size, fast, exact, **options)
        batches = images.batch(size, drop_remainder=True).map(WITHOUT_AUTOGRAPH(_without_padding))
        if stages.batch:
            mixed = mix(stages.batch, len(self.examples.classes), self.seed, division)
            batches = batches.enumerate(start).map(
                WITHOUT_AUTOGRAPH(lambda number, batch: mixed(step_of(number), batch))
            )
        if self.shard.num_own > 1:
            divide = for_each_device(division)
            batches = batches.enumerate(start).flat_map(
                WITHOUT_AUTOGRAPH(lambda number, batch: divide(step_of(number), batch))
            )
        dataset_options = tf.data.Options()
        dataset_options.deterministic = True
        # The pipeline shards by itself: each process reads its own rows.
        dataset_options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        # Autotune's thread sleeps for up to a minute and may miss the end of the run, which would then wait for it.
        dataset_options.autotune.enabled = False
        return batches.repeat(passes).prefetch(2 * self.shard.num_own).with_options(dataset_options)

    def _record_bad(self, index: tf.Tensor) -> tf.Tensor:
        def record(index: int) -> bool:
            examples, row = self.examples, int(self.examples.rows[index])
            crop = None
            if examples.crops is not None and examples.crops[index][2] > 0:
                top, left, height, width = (int(edge) for edge in examples.crops[index])
                crop = (left, top, width, height)
            self.bad_images.add(examples.images.name(row), lambda: examples.images.read(row), crop)
            return True

        recorded = tf.numpy_function(record, [index], tf.bool)
        recorded.set_shape(())
        return recorded


def _without_padding(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, exists: tf.Tensor) -> Batch:
    count = tf.reduce_sum(tf.cast(exists, tf.int32))  # padding is at the end
    return tf.nest.map_structure(lambda column: column[:count], Batch(images, labels, weights))
