"""The manifest of a run lists its files and says whether the run is complete."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePath
from typing import Any

import pytest

from model_trainer.errors import DataError
from model_trainer.storage import files
from model_trainer.storage.manifest import check_finished, note_unfinished, update_manifest, write_manifest
from model_trainer.storage.memory import Memory


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> PurePath:
    """A run with a model, a checkpoint and a report."""
    monkeypatch.setitem(files._MOUNTED, "memory", Memory())
    folder = files.as_path("memory://output/cats")
    for name in ("final_model.hdf5", "checkpoints/epoch-1/state.json", "report/index.html", "logs/.lock"):
        files.make_folder((folder / name).parent)
        files.write_text(folder / name, name)
    return folder


def content(run: PurePath) -> Any:
    return json.loads(files.read_text(run / "manifest.json"))


def test_the_manifest_lists_models_and_reports_with_size_and_sha_256(run: PurePath) -> None:
    write_manifest(run)
    assert content(run) == {
        "version": 1,
        "finished": True,
        "files": {
            name: {"bytes": len(name), "sha256": hashlib.sha256(name.encode()).hexdigest()}
            for name in ("final_model.hdf5", "report/index.html")
        },
    }


def test_an_unfinished_run_is_refused(run: PurePath) -> None:
    note_unfinished(run)
    with pytest.raises(DataError, match=r"memory://output/cats is not finished, according to its manifest.json"):
        check_finished(run)


def test_a_finished_run_is_accepted(run: PurePath) -> None:
    write_manifest(run)
    check_finished(run, run / "final_model.hdf5")


def test_a_run_without_a_manifest_is_accepted(run: PurePath) -> None:
    check_finished(run, run / "final_model.hdf5")


def test_a_run_on_the_local_disk_gets_no_manifest(tmp_path: Path) -> None:
    note_unfinished(tmp_path)
    write_manifest(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_of_a_copied_run_is_updated_on_the_local_disk(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"version": 1, "finished": false, "files": {}}')
    (tmp_path / "final_model.hdf5").write_bytes(b"model")
    write_manifest(tmp_path)
    assert content(tmp_path)["files"]["final_model.hdf5"]["bytes"] == 5


def test_a_model_of_another_size_is_refused(run: PurePath) -> None:
    write_manifest(run)
    files.write(run / "final_model.hdf5", b"half")
    with pytest.raises(DataError, match=r"final_model.hdf5 has 4 bytes, but 16 according to .*manifest.json"):
        check_finished(run, run / "final_model.hdf5")


def test_update_manifest_replaces_the_entries_of_a_folder(run: PurePath) -> None:
    write_manifest(run)
    files.delete(run / "report" / "index.html")
    files.write(run / "report" / "new.html", b"new")
    update_manifest(run, "report")
    assert set(content(run)["files"]) == {"final_model.hdf5", "report/new.html"}
    assert content(run)["files"]["report/new.html"]["bytes"] == 3


def test_updating_the_manifest_of_an_unfinished_run_does_not_finish_it(run: PurePath) -> None:
    note_unfinished(run)
    update_manifest(run, "report")
    assert content(run)["finished"] is False


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"finished": true, "files": {"a": 3}}', '{"finished": true, "files": []}']
)
def test_a_damaged_manifest_is_named(run: PurePath, text: str) -> None:
    files.write_text(run / "manifest.json", text)
    with pytest.raises(DataError, match=r"memory://output/cats/manifest.json is damaged. Copy the run again"):
        check_finished(run)
