"""How long does the evaluation of many images and tags take, and how much memory does it need?

    .venv/bin/python benchmarks/evaluation_tags.py                     100,000 images of 1,000 tags
    .venv/bin/python benchmarks/evaluation_tags.py --images 1000000    4 GB of disk

Like `benchmarks/evaluation.py`, which explains what is printed, but for sparse labels: 1 to 10 tags per image, some
common and most rare, 2 % of them unknown. The functions of scikit-learn get dense labels without unknown ones, which
they do not support; `without_ranking` leaves out the ranking metrics, which take most of their time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from evaluation import Steps, measured

THRESHOLD = 0.3


def make_predictions(folder: Path, num_images: int, num_tags: int, unknown: float) -> None:
    """Sigmoid outputs that are higher for the tags of an image."""
    random = np.random.default_rng(0)
    rows = np.repeat(np.arange(num_images), np.minimum(random.poisson(2.5, num_images) + 1, 10))
    tags = np.minimum(num_tags * random.random(len(rows)) ** 2, num_tags - 1).astype(np.int64)
    rows, tags = np.divmod(np.unique(rows * num_tags + tags), num_tags)
    starts = np.searchsorted(rows, np.arange(num_images + 1)).astype(np.int64)
    values = np.where(random.random(len(rows)) < unknown, np.nan, 1.0).astype(np.float32)
    np.savez(folder / "labels.npz", starts=starts, tags=tags.astype(np.int32), values=values)
    table = np.lib.format.open_memmap(folder / "probabilities.npy", "w+", np.float32, (num_images, num_tags))
    for start in range(0, num_images, 10_000):
        stop = min(start + 10_000, num_images)
        logits = random.standard_normal((stop - start, num_tags), np.float32) * 1.5 - 5.0
        entries = slice(starts[start], starts[stop])
        logits[rows[entries] - start, tags[entries]] += 4.5
        table[start:stop] = 1.0 / (1.0 + np.exp(-logits))
    table.flush()


def ours(folder: Path) -> dict[str, float]:
    from model_trainer.sources.label_rows import LabelRows
    from model_trainer.tasks.multi_label_evaluation import evaluate_tags

    table = np.load(folder / "probabilities.npy", mmap_mode="r")
    stored = np.load(folder / "labels.npz")
    labels = LabelRows(stored["starts"], stored["tags"], stored["values"])
    classes = tuple(f"tag {index}" for index in range(table.shape[1]))
    steps = Steps(len(table) > 100_000)
    evaluation = evaluate_tags(labels, table, classes, (THRESHOLD,) * len(classes), progress=steps)
    json.dumps(evaluation.to_dict(), allow_nan=False)
    evaluation.galleries()
    return {name: estimate.value for name, estimate in evaluation.estimates().items()}


def scikit_learn(folder: Path, *, with_ranking: bool = True) -> dict[str, float]:
    from sklearn import metrics

    table, stored = np.load(folder / "probabilities.npy"), np.load(folder / "labels.npz")
    targets = np.zeros(table.shape, np.int8)
    targets[np.repeat(np.arange(len(table)), np.diff(stored["starts"])), stored["tags"]] = 1
    results = {}
    for suffix, predicted in (("", table >= 0.5), ("_at_thresholds", table >= np.float32(THRESHOLD))):
        occurs = np.flatnonzero((predicted | (targets > 0)).any(axis=0))
        results |= {
            f"micro_f1{suffix}": metrics.f1_score(targets, predicted, average="micro"),
            f"macro_f1{suffix}": metrics.f1_score(
                targets, predicted, labels=occurs, average="macro", zero_division=0.0
            ),
            f"exact_match{suffix}": metrics.accuracy_score(targets, predicted),
            f"hamming_loss{suffix}": metrics.hamming_loss(targets, predicted),
        }
    if with_ranking:
        occurs = np.flatnonzero(targets.any(axis=0))
        results |= {
            "map": metrics.average_precision_score(targets[:, occurs], table[:, occurs], average="macro"),
            "macro_auroc": metrics.roc_auc_score(targets[:, occurs], table[:, occurs], average="macro"),
            "coverage_error": metrics.coverage_error(targets, table),
            "label_ranking_average_precision": metrics.label_ranking_average_precision_score(targets, table),
            "label_ranking_loss": metrics.label_ranking_loss(targets, table),
        }
    return results


def scikit_learn_without_ranking(folder: Path) -> dict[str, float]:
    return scikit_learn(folder, with_ranking=False)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--tags", type=int, default=1000)
    parser.add_argument("--whole", type=int, default=20_000, help="images of the comparison with scikit-learn; 0: none")
    parser.add_argument("--folder", help="where the predictions are written; default: the folder for temporary files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        cases: list[tuple[str, int, Callable[[Path], dict[str, float]]]] = [("many", options.images, ours)]
        if options.whole:
            cases += [("whole", options.whole, case) for case in (ours, scikit_learn, scikit_learn_without_ranking)]
        for kind, num_images in {kind: num_images for kind, num_images, _ in cases}.items():
            for path, shape in ((Path(name, kind), (num_images, options.tags)), (Path(name, kind, "small"), (500, 10))):
                path.mkdir()
                make_predictions(path, *shape, unknown=0.02 if kind == "many" else 0.0)
        metrics: dict[str, dict[str, float]] = {}
        for kind, num_images, case in cases:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                result = pool.apply(measured, (case, Path(name, kind)))
            table = num_images * options.tags * 4
            print(
                f"{num_images:,} x {options.tags:,} ({table / 1e6:,.0f} MB)  {case.__name__:28} "
                f"{result['seconds']:7.1f} s  peak {result['peak'] / 1e6:6,.0f} MB  "
                f"anonymous {result['anonymous'] / 1e6:6,.0f} MB",
                flush=True,
            )
            expected = metrics.setdefault(kind, result["metrics"])
            for metric, value in result["metrics"].items():
                assert abs(value - expected[metric]) < 1e-5 * max(1.0, value), (metric, value, expected[metric])


if __name__ == "__main__":
    main()
