"""A signal while a model is loaded or built ends the process; it is not reported as a damaged file."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from model_trainer import Classification, ModelSpec, Network
from model_trainer.dotted import import_dotted
from model_trainer.errors import StoppedError
from model_trainer.model_files import weights
from model_trainer.model_files.container import ModelFile, reading
from model_trainer.model_files.scan import Scanned
from model_trainer.model_files.untrusted import building


def stop(*arguments: object, **options: object) -> NoReturn:
    raise StoppedError("SIGTERM came.")


def test_a_signal_while_a_model_file_is_read_is_not_reported_as_damage() -> None:
    with pytest.raises(StoppedError), reading(Path("model.hdf5")):
        stop()


def test_a_signal_while_a_network_is_built_is_not_reported_as_damage() -> None:
    with pytest.raises(StoppedError), building(ModelFile(Path("model.hdf5"), Scanned({}, {}, {}), None)):
        stop()


def test_a_signal_while_weights_are_downloaded_is_not_a_failed_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "build_network", stop)
    with pytest.raises(StoppedError):
        weights._with_imagenet(ModelSpec.named("mobilenet_v1"), Network(), Classification(), 2)


def test_a_signal_while_user_code_is_imported_is_not_an_error_in_that_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stopped_here.py").write_text("from model_trainer.errors import StoppedError\nraise StoppedError\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(StoppedError):
        import_dotted("stopped_here.Network")
