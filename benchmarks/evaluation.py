"""How long does the evaluation of many images and classes take, and how much memory does it need?

    .venv/bin/python benchmarks/evaluation.py                     200,000 images of 1,000 classes
    .venv/bin/python benchmarks/evaluation.py --images 1000000    4 GB of disk

Writes synthetic probabilities to a file (in `--folder`), float32 as `evaluation/probabilities.npy`, and evaluates them
as a memory map: all metrics, intervals, calibration, galleries, and the JSON. Then the same at a size at which the
whole table fits into memory several times (`--whole`), compared with the usual code: `np.load` and the functions of
scikit-learn for the metrics that it has (no intervals, no temperature, no galleries), once for all of them, and once
without the area under the ROC curve and average precision, which take most of its time.

Each case runs in its own process. Prints seconds, and memory above that after the imports:
`peak` is the rise of the highest resident memory (VmHWM), which includes pages of the file while they are mapped, and
`anonymous` the highest RssAnon, the process' own memory without pages of files, sampled every 20 ms.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def make_predictions(folder: Path, num_images: int, num_classes: int) -> None:
    """Overconfident predictions, right for about 3 of 4 images."""
    random = np.random.default_rng(0)
    labels = random.permutation(num_images).astype(np.int32) % num_classes
    table = np.lib.format.open_memmap(folder / "probabilities.npy", "w+", np.float32, (num_images, num_classes))
    for start in range(0, num_images, 10_000):
        rows = slice(start, start + 10_000)
        logits = random.standard_normal(table[rows].shape, np.float32) * 2.0
        logits[np.arange(len(logits)), labels[rows]] += 8.0
        np.exp(logits, out=logits)
        table[rows] = logits / logits.sum(axis=1, keepdims=True)
    table.flush()
    np.save(folder / "labels.npy", labels)


def status(name: str) -> int:
    """A memory value of /proc/self/status, in bytes."""
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) * 1024


def measured(compute: Callable[[Path], dict[str, float]], folder: Path) -> dict[str, object]:
    compute(Path(folder, "small"))  # so that all imports are done
    before, anonymous = status("VmRSS"), status("RssAnon")
    peaks, done = [anonymous], threading.Event()

    def sample() -> None:
        while not done.wait(0.02):
            peaks.append(status("RssAnon"))

    sampler = threading.Thread(target=sample)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to the current memory
    sampler.start()
    started = time.perf_counter()
    metrics = compute(folder)
    seconds = time.perf_counter() - started
    done.set()
    sampler.join()
    return {
        "seconds": seconds, "peak": status("VmHWM") - before, "anonymous": max(peaks) - anonymous, "metrics": metrics
    }  # fmt: skip


def ours(folder: Path) -> dict[str, float]:
    from model_trainer.tasks.classification_evaluation import evaluate_classes

    table = np.load(folder / "probabilities.npy", mmap_mode="r")
    classes = tuple(f"class {index}" for index in range(table.shape[1]))
    evaluation = evaluate_classes(np.load(folder / "labels.npy"), table, classes, progress=Steps(len(table) > 100_000))
    json.dumps(evaluation.to_dict(), allow_nan=False)
    evaluation.galleries()
    return {name: estimate.value for name, estimate in evaluation.estimates().items()}


class Steps:
    """Prints how long each step took."""

    def __init__(self, shown: bool) -> None:
        self.shown, self.step, self.started = shown, "", time.perf_counter()

    def __call__(self, step: str, fraction: float) -> None:
        if step != self.step:
            self.step, self.started = step, time.perf_counter()
        if fraction == 1.0 and self.shown:
            print(f"    {step}: {time.perf_counter() - self.started:.1f} s", flush=True)


def scikit_learn(folder: Path, *, with_ranking: bool = True) -> dict[str, float]:
    from sklearn import metrics

    labels, table = np.load(folder / "labels.npy"), np.load(folder / "probabilities.npy")
    classes = np.arange(table.shape[1])
    predicted = table.argmax(axis=1)
    metrics.confusion_matrix(labels, predicted, labels=classes)
    metrics.precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0.0)
    results = {
        "accuracy": metrics.accuracy_score(labels, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, predicted),
        "top_5_accuracy": metrics.top_k_accuracy_score(labels, table, k=5, labels=classes),
        "macro_f1": metrics.f1_score(labels, predicted, average="macro"),
        "weighted_f1": metrics.f1_score(labels, predicted, average="weighted"),
        "cohen_kappa": metrics.cohen_kappa_score(labels, predicted),
        "matthews": metrics.matthews_corrcoef(labels, predicted),
        "log_loss": metrics.log_loss(labels, table, labels=classes),
        "brier": metrics.brier_score_loss(labels, table, labels=classes),
    }
    if with_ranking:
        own = labels[:, None] == classes
        results["macro_auroc"] = metrics.roc_auc_score(own, table, average="macro")
        results["macro_average_precision"] = metrics.average_precision_score(own, table, average="macro")
    return results


def scikit_learn_without_ranking(folder: Path) -> dict[str, float]:
    return scikit_learn(folder, with_ranking=False)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--whole", type=int, default=20_000, help="images of the comparison with scikit-learn; 0: none")
    parser.add_argument("--folder", help="where the predictions are written; default: the folder for temporary files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        cases: list[tuple[int, Callable[[Path], dict[str, float]]]] = [(options.images, ours)]
        if options.whole:
            cases += [(options.whole, case) for case in (ours, scikit_learn, scikit_learn_without_ranking)]
        for num_images in {options.images, options.whole} - {0}:
            for path, count in ((folder / str(num_images), num_images), (folder / str(num_images) / "small", 500)):
                path.mkdir()
                make_predictions(path, count, options.classes if count == num_images else 10)
        metrics: dict[int, dict[str, float]] = {}
        for num_images, case in cases:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                result = pool.apply(measured, (case, folder / str(num_images)))
            table = num_images * options.classes * 4
            print(
                f"{num_images:,} x {options.classes:,} ({table / 1e6:,.0f} MB)  {case.__name__:28} "
                f"{result['seconds']:7.1f} s  peak {result['peak'] / 1e6:6,.0f} MB  "
                f"anonymous {result['anonymous'] / 1e6:6,.0f} MB",
                flush=True,
            )
            expected = metrics.setdefault(num_images, result["metrics"])
            for metric, value in result["metrics"].items():
                assert abs(value - expected[metric]) < 1e-5, (metric, value, expected[metric])


if __name__ == "__main__":
    main()
