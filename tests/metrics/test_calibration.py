from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss

from model_trainer.metrics.calibration import (
    NUM_BINS,
    Calibration,
    calibrate,
    fit_temperature,
    reliability,
    with_temperature,
)
from model_trainer.metrics.image_scores import score_images


def predictions(temperature: float, num_images: int = 300, num_classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and logits that are calibrated once divided by `temperature`."""
    random = np.random.default_rng(7)
    logits = random.normal(size=(num_images, num_classes)) * 2.0
    labels = np.array([random.choice(num_classes, p=row) for row in softmax(logits, axis=1)])
    return labels, logits * temperature


def best_temperature(mean_loss) -> float:
    return minimize_scalar(lambda log: mean_loss(np.exp(log)), bounds=(-3, 3), method="bounded").x


@given(st.sampled_from([0.3, 0.8, 1.0, 2.5, 7.0]), st.sampled_from([2, 5, 40]))
@settings(max_examples=15)
def test_the_temperature_fitted_to_a_softmax_matches_the_one_that_scipy_fits_to_logits(
    true: float, classes: int
) -> None:
    labels, logits = predictions(true, num_classes=classes)

    def mean_loss(temperature: float) -> float:
        return -log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean()

    fitted = fit_temperature(labels, softmax(logits, axis=1).astype(np.float32))
    assert fitted is not None
    assert fitted == pytest.approx(np.exp(best_temperature(mean_loss)), rel=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_a_temperature_divides_the_logits(temperature: float) -> None:
    _, logits = predictions(1.0)
    scaled = with_temperature(softmax(logits, axis=1).astype(np.float32), temperature)
    assert scaled == pytest.approx(softmax(logits / temperature, axis=1), abs=1e-6)
    assert scaled.dtype == np.float32


def test_probabilities_of_exactly_0_and_1_stay_so_at_any_temperature() -> None:
    table = np.array([[1.0, 0.0], [0.5, 0.5]], np.float32)
    assert with_temperature(table, 2.0).tolist() == table.tolist()


def test_exact_zeros_and_ones_do_not_stop_the_fit() -> None:
    labels, logits = predictions(3.0)
    table = softmax(logits * 40.0, axis=1).astype(np.float32)
    assert (table == 0.0).any()
    temperature = fit_temperature(labels, table)
    assert temperature is None or 1.0 < temperature < 200.0


@pytest.mark.parametrize(
    "table",
    [
        pytest.param([[0.9, 0.1], [0.2, 0.8]], id="every prediction is right"),
        pytest.param([[1.0, 0.0], [0.0, 1.0]], id="every prediction is right and certain"),
        pytest.param([[0.1, 0.9], [0.8, 0.2]], id="every prediction is wrong"),
        pytest.param([[0.5, 0.5], [0.5, 0.5]], id="all probabilities are equal"),
        pytest.param([[np.nan, np.nan], [0.5, 0.5]], id="a probability is NaN"),
        pytest.param(np.zeros((0, 2)), id="there are no images"),
    ],
)
def test_no_temperature_is_fitted_if(table: list[list[float]]) -> None:
    array = np.array(table, np.float32)
    assert fit_temperature(np.arange(len(array)), array) is None


def test_a_sample_of_a_large_table_has_about_its_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, logits = predictions(2.0, num_images=4000)
    table = softmax(logits, axis=1).astype(np.float32)
    whole = fit_temperature(labels, table)
    monkeypatch.setattr("model_trainer.metrics.calibration._MAX_VALUES", 10_000)
    monkeypatch.setattr("model_trainer.metrics.calibration._MAX_EXACT", 0)
    assert fit_temperature(labels, table) == pytest.approx(whole, rel=0.1)
    assert fit_temperature(labels, table) != whole


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """As in the paper of Guo et al., bin by bin."""
    total = 0.0
    for low, high in zip(np.linspace(0, 1, 16)[:-1], np.linspace(0, 1, 16)[1:], strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


@given(st.integers(2, 6), st.integers(1, 40), st.sampled_from([2, 15, 10_000]), st.integers(0, 1000))
@settings(max_examples=40)
def test_the_expected_calibration_error_matches_plain_numpy(classes: int, images: int, levels: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    weights = random.integers(1, levels + 1, (images, classes)).astype(np.float64)
    table, labels = weights / weights.sum(axis=1, keepdims=True), random.integers(0, classes, images)
    scores = score_images(labels, table)
    expected = expected_calibration_error(table.max(axis=1), table.argmax(axis=1) == labels)
    assert reliability(scores, labels).ece == pytest.approx(expected, abs=1e-12)


def test_bins_hold_mean_confidence_and_accuracy() -> None:
    labels = np.array([0, 1, 0])
    table = np.array([[0.80, 0.20], [0.84, 0.16], [0.0, 1.0]])
    bins = reliability(score_images(labels, table), labels).to_dict()["bins"]
    assert len(bins) == NUM_BINS
    assert bins[12] == {"low": 0.8, "high": 13 / 15, "images": 1, "confidence": 0.84, "accuracy": 0.0}
    assert bins[11]["images"] == 1  # a value on an edge belongs to the lower bin
    assert bins[14] == {"low": 14 / 15, "high": 1.0, "images": 1, "confidence": 1.0, "accuracy": 0.0}
    assert bins[0] == {"low": 0.0, "high": 1 / 15, "images": 0, "confidence": None, "accuracy": None}


def calibrated(temperature: float) -> tuple[Calibration, np.ndarray, np.ndarray]:
    labels, logits = predictions(temperature)
    table = softmax(logits, axis=1).astype(np.float32)
    return calibrate(labels, table, score_images(labels, table)), labels, table


def test_after_describes_the_calibrated_probabilities() -> None:
    calibration, labels, table = calibrated(4.0)
    assert calibration.temperature is not None
    assert calibration.after is not None
    scaled = with_temperature(table, calibration.temperature)
    assert calibration.after.to_dict() == reliability(score_images(labels, scaled), labels).to_dict()
    assert calibration.after.log_loss == pytest.approx(log_loss(labels, scaled), abs=1e-6)
    assert calibration.after.log_loss < calibration.before.log_loss
    assert calibration.after.ece < calibration.before.ece / 2


def test_chunks_are_calibrated_like_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _, _ = calibrated(4.0)
    for constant in ("_CHUNK_BYTES", "_CACHE_BYTES"):
        monkeypatch.setattr(f"model_trainer.metrics.calibration.{constant}", 20 * 7)
    in_chunks, _, _ = calibrated(4.0)
    assert whole.after is not None
    assert in_chunks.after is not None
    assert in_chunks.temperature == pytest.approx(whole.temperature)
    assert in_chunks.after.ece == pytest.approx(whole.after.ece)


def test_without_a_temperature_there_is_no_after() -> None:
    labels, table = np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    calibration = calibrate(labels, table, score_images(labels, table))
    assert (calibration.temperature, calibration.after) == (None, None)
    assert calibration.to_dict()["after"] is None
