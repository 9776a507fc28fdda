"""Examples to batches: one `tf.data` pipeline from table to uint8 images, in an order that is a function.

Position p of the whole run belongs to step p // batch_size. An epoch's last batch is filled up with places
that hold no example, so that batches never cross epochs; they are dropped again before anyone sees them.
Of several processes each reads its own rows of every batch.
So resuming at a step is a range that starts later, and the next epoch's first images are decoded while the
last epoch is still being validated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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
from model_trainer.pipeline.read import make_fast_reader, make_safe_reader
from model_trainer.pipeline.sampling import EachOnce, Sampling, make_sampler
from model_trainer.pipeline.shard import BatchShard, Division
from model_trainer.pipeline.view import View
from model_trainer.sources.examples import Examples
from model_trainer.specs import ModelSpec

__all__ = ["Pipeline", "num_steps"]

# AutoGraph would read the source of every function, which takes longer than building the graph.
PLAIN = tf.autograph.experimental.do_not_convert

Order = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]  # a position to its example's index and seed


def num_steps(num_examples: int, batch_size: int) -> int:
    """Batches in one pass over the examples; the last may be smaller."""
    return -(-num_examples // batch_size)


@dataclass(frozen=True)
class Pipeline:
    """Turns examples into batches, see `Batch`. An image that cannot be read keeps its place.

    Attributes:
        examples: the table.
        spec: says the size and how an image gets it.
        batch_size: images in a step, over all devices together.
        share: what this process reads of a batch. With several devices of its own each batch comes as that many, one
            after the other, whose sizes differ by one at most.
        bad_images: is told of each unreadable image.
        augment: what happens to a training image; only `training` uses it.
        sampling: which images an epoch of training shows.
        seed: of order and augmentation.
    """

    examples: Examples
    spec: ModelSpec
    batch_size: int
    bad_images: BadImages
    share: BatchShard = field(default_factory=BatchShard)
    augment: Sequence[Augmentation] = ()
    sampling: Sampling = field(default_factory=EachOnce)
    seed: int = 0

    def training(self, epochs: int, first_step: int = 0) -> tf.data.Dataset:
        """Every epoch's batches in one stream, from `first_step` of the run on."""
        last_step = epochs * num_steps(len(self.examples), self.batch_size)
        return self._batches(first_step, last_step, self._training_order(epochs), split_augment(self.augment))

    def beginnings(self, epochs: int, first_epoch: int, count: int, last_count: int) -> tf.data.Dataset:
        """After each epoch from `first_epoch` on, the first `count` batches of the next one, in one stream.

        After the last of `epochs` they are `last_count`, of an epoch that is not trained any more.
        """
        per_epoch = num_steps(len(self.examples), self.batch_size)

        def step_of(number: tf.Tensor) -> tf.Tensor:
            epoch = tf.minimum(number // count, epochs - 1)
            return (epoch + 1) * per_epoch + number - epoch * count

        start, stop = first_epoch * count, (epochs - 1) * count + last_count
        place, stages = self._training_order(epochs + 1), split_augment(self.augment)
        return self._batches(start, stop, place, stages, step_of=step_of)

    def shown(self, epochs: int) -> np.ndarray:
        """int64 `(epochs * num_examples,)`: the index of each example in the order in which `training` shows them."""
        place = self._training_order(epochs)
        positions = tf.data.Dataset.range(epochs * self._rows_per_epoch)
        indices = np.fromiter(positions.map(PLAIN(lambda position: place(position)[0])).as_numpy_iterator(), np.int64)
        return indices[indices >= 0]

    @property
    def _rows_per_epoch(self) -> int:
        return num_steps(len(self.examples), self.batch_size) * self.batch_size

    def _training_order(self, epochs: int) -> Order:
        seeds = tf.constant(epoch_seeds(self.seed, epochs), tf.uint32)
        sample = make_sampler(self.examples, self.sampling, self.seed)

        def place(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            epoch, within = position // self._rows_per_epoch, position % self._rows_per_epoch
            # Past the end there is no example; the shuffle still wants a position that exists.
            exists = within < len(self.examples)
            index = shuffled_index(tf.where(exists, within, 0), seeds[epoch], len(self.examples))
            if sample is not None:
                index = sample(epoch, index)
            return tf.where(exists, index, -1), example_seed(self.seed, epoch, within)

        return place

    def validation(self, passes: int = 1) -> tf.data.Dataset:
        """Every image once in the table's own order, without chance; `passes` times, one after the other."""

        def place(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return tf.where(position < len(self.examples), position, -1), tf.zeros(2, tf.int32)

        return self._batches(0, num_steps(len(self.examples), self.batch_size), place, split_augment(()), passes)

    def in_step(self, step: int, epochs: int) -> np.ndarray:
        """int64 `(size,)`: the index of each example in a step of `training`, over all processes."""
        place, start = self._training_order(epochs), step * self.batch_size
        indices = [int(place(tf.constant(start + row, tf.int64))[0]) for row in range(self.batch_size)]
        return np.array([index for index in indices if index >= 0], np.int64)

    def _batches(
        self,
        start: int,
        stop: int,
        place: Order,
        stages: Stages,
        passes: int = 1,
        step_of: Callable[[tf.Tensor], tf.Tensor] = lambda number: number,
    ) -> tf.data.Dataset:
        """Batches of the steps from `start` to `stop - 1`, `passes` times.

        Args:
            place: position to the example's index (-1 where there is none) and its seed.
            stages: what happens to images and batches.
            step_of: the step that a number from `start` to `stop - 1` stands for; itself by default.
        """
        division = Division(self.share, self.batch_size, len(self.examples), with_partners=bool(stages.batch))
        read_fast, read_safe = make_fast_reader(self.examples), make_safe_reader(self.examples)
        label_of = make_label_reader(self.examples)
        weights = tf.constant(np.maximum(self.examples.weights, MIN_WEIGHT))
        crops = None if self.examples.crops is None else tf.constant(self.examples.crops)
        view, blank = View(self.spec, stages.crop), tf.zeros(self.spec.target_size, tf.uint8)

        def finish(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(augment_image(image, stages.image, seed), blank.shape)

        def find(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            step, row = step_of(number // division.places), number % division.places
            position, is_there, counts = division.position(step * division.places + row)
            index, seed = place(position)
            return tf.where(is_there, index, -1), seed, tf.cast(counts, tf.float32)

        def fast(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
            index, seed, counts = find(number)

            def load() -> tuple[tf.Tensor, ...]:
                part = None if crops is None else crops[index]
                image = fast_image(read_fast(index), view, part=part, seed=seed)
                return finish(image, seed), weights[index] * counts, True

            image, weight, exists = tf.cond(index >= 0, load, lambda: (blank, 0.0, False))
            return image, label_of(index), weight, exists

        def exact(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
            index, seed, counts = find(number)
            exists, index = index >= 0, tf.maximum(index, 0)  # `fast` fails at no empty place, but both mean the same
            part = None if crops is None else crops[index]
            image, readable = exact_image(read_safe(index), view, part=part, seed=seed)
            noted = tf.cond(readable, lambda: True, lambda: self._note_bad(index))
            with tf.control_dependencies([noted]):
                weight = weights[index] * counts * tf.cast(readable & exists, tf.float32)
            # Augmented it might not stay blank.
            image = tf.cond(readable, lambda: finish(image, seed), lambda: blank)
            return image, label_of(index), weight, exists

        size = division.places
        images = map_with_fallback(start * size, stop * size, fast, exact)
        batches = images.batch(size, drop_remainder=True).map(PLAIN(_without_padding))
        if stages.batch:
            mixed = mix(stages.batch, len(self.examples.classes), self.seed, division)
            batches = batches.enumerate(start).map(PLAIN(lambda number, batch: mixed(step_of(number), batch)))
        if self.share.num_own > 1:
            divide = for_each_device(division)
            batches = batches.enumerate(start).flat_map(PLAIN(lambda number, batch: divide(step_of(number), batch)))
        options = tf.data.Options()
        options.deterministic = True
        # Sharding is ours: the order says who gets what.
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        # Its thread sleeps for up to a minute, and may miss that the run has ended, which then waits for it.
        options.autotune.enabled = False
        return batches.repeat(passes).prefetch(2 * self.share.num_own).with_options(options)

    def _note_bad(self, index: tf.Tensor) -> tf.Tensor:
        def note(index: int) -> bool:
            examples, row = self.examples, int(self.examples.rows[index])
            crop = None
            if examples.crops is not None and examples.crops[index][2] > 0:
                top, left, height, width = (int(edge) for edge in examples.crops[index])
                crop = (left, top, width, height)
            self.bad_images.add(examples.images.name(row), lambda: examples.images.read(row), crop)
            return True

        noted = tf.numpy_function(note, [index], tf.bool)
        noted.set_shape(())
        return noted


def _without_padding(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, exists: tf.Tensor) -> Batch:
    count = tf.reduce_sum(tf.cast(exists, tf.int32))  # they stand at the end
    return tf.nest.map_structure(lambda column: column[:count], Batch(images, labels, weights))
