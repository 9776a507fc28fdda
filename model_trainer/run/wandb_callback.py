"""Records a run in Weights & Biases."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from typing import Any, final

import wandb

from model_trainer.run.tracker_callback import Status, TrackerCallback
from model_trainer.storage import files

__all__ = ["WandbCallback"]

WAIT_SECONDS = 20  # for a response; the defaults of W&B are 90 seconds, or no limit
EXIT_CODES = {"finished": 0, "stopped": 75, "failed": 1}


@final
class WandbCallback(TrackerCallback):
    """Records a run in Weights & Biases, as a run of its own, apart from one that the user has started.

    Args:
        project, entity, mode: see `WeightsAndBiases`.
    """

    def __init__(self, project: str | None, entity: str | None, mode: str | None) -> None:
        super().__init__("Weights & Biases")
        self._project = project
        self._entity = entity
        self._mode = mode or os.environ.get("WANDB_MODE", "online")
        self._session: Any = None

    def start_run(self, name: str, folder: str) -> None:
        if self._mode == "online" and not wandb.login(timeout=WAIT_SECONDS):
            raise ConnectionError("there is no API key. Run: .venv/bin/wandb login")
        self.run_id = self.run_id or uuid.uuid4().hex[:8]
        logs = os.path.join(folder, "logs")
        self._session = wandb.init(
            project=self._project,
            entity=self._entity,
            id=self.run_id,
            name=name,
            resume="allow",
            reinit="create_new",
            mode=self._mode,
            dir=logs if "WANDB_DIR" not in os.environ and files.is_local_folder(logs) else None,
            settings=wandb.Settings(
                init_timeout=WAIT_SECONDS,
                finish_timeout=WAIT_SECONDS,
                finish_timeout_raises=True,
                console="off",  # the log is in logs/train.log
                silent=True,
            ),
        )
        self.url = self._session.url or ""

    def log_settings(self, folder: str, settings: Mapping[str, Any], all_settings: Mapping[str, Any]) -> None:
        # In a resumed run they may have changed.
        self._session.config.update({**settings, "output_dir": folder}, allow_val_change=True)

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._session.log(dict(metrics), step=epoch)

    def end_run(self, status: Status, metrics: Mapping[str, float], texts: Mapping[str, str]) -> None:
        try:
            self._log_end(metrics, texts)
        finally:
            if status == "stopped":
                self._session.mark_preempting()  # then it counts as one that will be resumed, not as failed
            self._session.finish(exit_code=EXIT_CODES[status])

    def _log_end(self, metrics: Mapping[str, float], texts: Mapping[str, str]) -> None:
        self._session.summary.update(dict(metrics))
        artifact = wandb.Artifact(f"run-{self.run_id}", type="run")
        for path, text in texts.items():
            with artifact.new_file(path) as file:
                file.write(text)
        self._session.log_artifact(artifact)
