"""Records a run in MLflow."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, final

import mlflow
from mlflow.entities import Metric, Param, RunTag

from model_trainer.run.mlflow_keys import mlflow_keys
from model_trainer.run.tracker_callback import Status, TrackerCallback

__all__ = ["MlflowCallback"]

BATCH = 100  # parameters or tags per request, MLflow's limit
STATUSES = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
# By default, MLflow waits for 2 minutes and retries 7 times, which takes 4 minutes without a server.
REQUEST_OPTIONS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the next epoch tries again
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the log has it
}


@final
class MlflowCallback(TrackerCallback):
    """Records a run in MLflow, by its client API, so that the user's own active run stays as it is.

    Args:
        tracking_uri, experiment: see `MLflow`.
    """

    def __init__(self, tracking_uri: str | None, experiment: str | None) -> None:
        super().__init__("MLflow")
        self._tracking_uri = tracking_uri
        self._experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")
        self._client: Any = None

    def start_run(self, name: str, folder: str) -> None:
        with _short_quiet_requests():
            self._client = mlflow.MlflowClient(tracking_uri=self._tracking_uri)
            if self.run_id is None:
                experiment = self._client.get_experiment_by_name(self._experiment)
                if experiment is not None:
                    experiment_id = experiment.experiment_id
                else:
                    experiment_id = self._client.create_experiment(self._experiment)
                self.run_id = self._client.create_run(experiment_id, run_name=name).info.run_id
            else:
                self._client.update_run(self.run_id, status="RUNNING")
            uri = self._client.tracking_uri
            if uri.startswith("http"):
                experiment_id = self._client.get_run(self.run_id).info.experiment_id
                self.url = f"{uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{self.run_id}"

    def log_settings(self, folder: str, settings: Mapping[str, Any], all_settings: Mapping[str, Any]) -> None:
        keys = mlflow_keys([*all_settings, *settings])
        with _short_quiet_requests():
            recorded = self._client.get_run(self.run_id).data.params
            params = [Param(keys[name], _text(value)) for name, value in settings.items() if keys[name] not in recorded]
            # A parameter cannot be changed: a setting that is changed when a run is resumed becomes a tag.
            texts = {keys[name]: _text(value) for name, value in all_settings.items()}
            changed = {key: text for key, text in texts.items() if key in recorded and text != recorded[key]}
            tags = [RunTag(key, text) for key, text in ({"output_dir": folder} | changed).items()]
            # First, because parameters may be refused.
            self._client.log_batch(self.run_id, tags=tags[:BATCH], synchronous=True)
            for start in range(0, len(params), BATCH):
                self._client.log_batch(self.run_id, params=params[start : start + BATCH], synchronous=True)

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._log_metrics(metrics, epoch)

    def _log_metrics(self, metrics: Mapping[str, float], epoch: int) -> None:
        now, keys = int(time.time() * 1000), mlflow_keys(metrics)
        values = [Metric(keys[name], value, now, epoch) for name, value in metrics.items()]
        with _short_quiet_requests():
            self._client.log_batch(self.run_id, metrics=values, synchronous=True)

    def end_run(self, status: Status, metrics: Mapping[str, float], texts: Mapping[str, str]) -> None:
        with _short_quiet_requests():
            # First, because files may be stored elsewhere, where they may be refused.
            self._client.set_terminated(self.run_id, STATUSES[status])
            if metrics:
                self._log_metrics(metrics, self._num_epochs)
            for path, text in texts.items():
                self._client.log_text(self.run_id, text, path)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@contextlib.contextmanager
def _short_quiet_requests() -> Iterator[None]:
    """Limits how long a request of MLflow may take in the `with` block, unless the user has set another limit."""
    added = {name: value for name, value in REQUEST_OPTIONS.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
