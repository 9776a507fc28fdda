"""The manifest of a run in an object store: not finished while a process trains, and consistent with the models."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Any, cast

import pytest

from model_trainer import load_model
from model_trainer.errors import DataError
from model_trainer.report import comparison
from model_trainer.report.comparison import write_comparison
from model_trainer.storage import files, manifest
from model_trainer.storage.manifest import check_finished, note_unfinished, write_manifest
from model_trainer.training.train import Result, end_run


@pytest.fixture
def run(bucket: str) -> PurePath:
    """A run that this process has trained but not finished yet."""
    folder = files.as_path(f"{bucket}/output/cats")
    note_unfinished(folder)
    for name in ("model_max_acc.hdf5", "final_model.hdf5"):
        files.write_text(folder / name, name)
    return folder


def content(run: PurePath) -> Any:
    return json.loads(files.read_text(run / "manifest.json"))


@contextlib.contextmanager
def another_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "_process", lambda: "another process")
        yield


def test_a_run_that_another_process_has_resumed_is_not_marked_as_finished(run: PurePath) -> None:
    with another_process():
        note_unfinished(run)
    end_run(Result(cast(Path, run), [], {}), {})
    assert content(run)["finished"] is False


def test_a_run_that_another_process_trains_is_not_marked_as_finished(
    run: PurePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    def block(*arguments: object, **options: object) -> None:
        raise BlockingIOError

    monkeypatch.setattr(files, "lock", block)
    write_manifest(run)
    assert content(run)["finished"] is False


def test_a_finished_run_without_a_manifest_gets_one_later(run: PurePath) -> None:
    with another_process():
        note_unfinished(run)
    write_manifest(run, by_any=True)
    assert set(content(run)["files"]) == {"model_max_acc.hdf5", "final_model.hdf5"}
    assert content(run).keys() == {"version", "finished", "files"}
    assert files.names_in(run / "logs") == []


def test_a_model_that_was_replaced_in_a_finished_run_is_refused(run: PurePath) -> None:
    write_manifest(run)
    model = run / "model_max_acc.hdf5"
    check_finished(run, model)
    files.write_text(model, "MODEL_MAX_ACC.hdf5")  # of the same size
    with pytest.raises(DataError, match=r"model_max_acc.hdf5 does not have the SHA-256 in .*name its file: s3://"):
        check_finished(run, model)
    files.write_text(model, "model_max_acc.hdf5")
    check_finished(run, model)


def test_a_copied_run_without_its_best_model_does_not_load_another_one(run: PurePath, bucket: str) -> None:
    write_manifest(run)
    for name in ("manifest.json", "final_model.hdf5"):
        files.copy(run / name, f"{bucket}/copy/{name}")
    with pytest.raises(DataError, match=r"copy/model_max_acc.hdf5 is missing, .* name its file: .*final_model.hdf5"):
        load_model(f"{bucket}/copy")


def test_a_comparison_is_listed_in_the_manifest(run: PurePath, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(run)
    monkeypatch.setattr(comparison, "read_run", lambda path: SimpleNamespace(path=files.as_path(path)))
    monkeypatch.setattr(comparison, "render_comparison", lambda runs: "<p>page</p>")
    write_comparison([run, f"{bucket}/output/dogs"])
    assert content(run)["files"]["report/comparison.html"]["bytes"] == len("<p>page</p>")
