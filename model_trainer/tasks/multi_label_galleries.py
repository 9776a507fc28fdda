"""Selects the images of a multi-label classifier's evaluation that are worth a look."""

from __future__ import annotations

import numpy as np

from model_trainer.metrics.multi_label import TagCounts
from model_trainer.metrics.tag_labels import TagLabels
from model_trainer.tasks.evaluation import Gallery, GalleryImage

__all__ = ["galleries_of_tags"]

# A report is one file that people send by mail, so the number of images is limited.
_MAX_IMAGES = 24
_MAX_TAGS = 20


def galleries_of_tags(labels: TagLabels, counts: TagCounts, classes: tuple[str, ...]) -> list[Gallery]:
    """Returns the galleries that have images: wrongly predicted and missed tags, uncertain hits, worst images by tag.

    An image is in each gallery at most once, with the tag that put it there; in the last one once for each such tag.

    Args:
        labels: the true and the unknown tags.
        counts: from `count_tags`; the last of its decisions are used.
        classes: names of the tags.
    """
    wrong, missed = counts.wrong, counts.missed

    def wrong_tag_image(row: int) -> GalleryImage:
        tag = int(wrong.which[row])
        return GalleryImage(row, tag, f"{classes[tag]} {wrong.probability[row]:.2f}, which it is not")

    def missed_tag_image(row: int) -> GalleryImage:
        tag = int(missed.which[row])
        return GalleryImage(row, tag, f"is {classes[tag]}, which got {missed.probability[row]:.2f}")

    return [
        gallery
        for gallery in (
            Gallery(
                "confident_mistakes",
                "Most confident mistakes",
                "The most probable tags that an image does not have. Look for missing labels first.",
                tuple(wrong_tag_image(int(row)) for row in _lowest(-wrong.probability)),
            ),
            Gallery(
                "missed_tags",
                "Most confidently missed tags",
                "The model gave a tag of the image a very low probability. Look for wrong labels first.",
                tuple(missed_tag_image(int(row)) for row in _lowest(missed.probability)),
            ),
            Gallery(
                "uncertain_hits",
                "Least confident correct predictions",
                "A tag was predicted correctly, but its probability barely reached the threshold. More such training "
                "images make the model more confident.",
                _uncertain_hits(labels, counts, classes),
            ),
            Gallery(
                "worst_by_class",
                "Worst images by tag",
                "For each tag the image in which it was wrongly predicted with the highest probability, and the one in "
                "which it was missed with the lowest; the tags with the most mistakes first.",
                _worst_by_tag(counts, classes),
            ),
        )
        if gallery.images
    ]


def _lowest(values: np.ndarray) -> np.ndarray:
    """Returns the rows of the lowest values, in ascending order of the values, without NaN."""
    rows = np.flatnonzero(~np.isnan(values))
    return rows[np.argsort(values[rows], kind="stable")[:_MAX_IMAGES]]


def _uncertain_hits(labels: TagLabels, counts: TagCounts, classes: tuple[str, ...]) -> tuple[GalleryImage, ...]:
    decisions, present = counts.decisions[-1], labels.entries().present
    hits = np.flatnonzero(decisions.is_hit)
    margins = counts.present_probability[hits] - decisions.thresholds[present.tags[hits]]
    closest = hits[np.argsort(margins, kind="stable")]
    _, first = np.unique(present.rows[closest], return_index=True)  # each image with its least certain hit
    images = []
    for entry in closest[np.sort(first)[:_MAX_IMAGES]]:
        tag = int(present.tags[entry])
        probability, threshold = counts.present_probability[entry], decisions.thresholds[tag]
        images.append(
            GalleryImage(
                int(present.rows[entry]), tag, f"{classes[tag]} {probability:.2f}, counts from {threshold:.2f}"
            )
        )
    return tuple(images)


def _worst_by_tag(counts: TagCounts, classes: tuple[str, ...]) -> tuple[GalleryImage, ...]:
    decisions = counts.decisions[-1]
    mistakes = decisions.tag_predicted + counts.tag_present - 2 * decisions.tag_hits
    images = []
    for tag in np.argsort(-mistakes, kind="stable")[:_MAX_TAGS].tolist():
        wrong, missed = counts.wrong_image, counts.missed_image
        if wrong.which[tag] >= 0:
            caption = f"{classes[tag]} {wrong.probability[tag]:.2f}, which it is not"
            images.append(GalleryImage(int(wrong.which[tag]), tag, caption))
        if missed.which[tag] >= 0:
            caption = f"is {classes[tag]}, which got {missed.probability[tag]:.2f}"
            images.append(GalleryImage(int(missed.which[tag]), tag, caption))
    return tuple(images)
