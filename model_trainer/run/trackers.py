"""Experiment trackers as declared values: MLflow, and Weights & Biases."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, final
from urllib.parse import urlsplit

from pydantic import field_validator

from model_trainer.errors import ConfigError
from model_trainer.run.callbacks import Callback

if TYPE_CHECKING:
    import keras

__all__ = ["MLflow", "WeightsAndBiases"]


@final
class MLflow(Callback):
    """Records the run in MLflow: settings, versions, metrics of each epoch and of the evaluation, report, small files.

    A resumed run continues its run in MLflow. A server that does not answer delays training by seconds and does not
    end it. User name and password come from the environment variables MLFLOW_TRACKING_USERNAME and
    MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.

    Fields:
        tracking_uri: address of the tracking server; None is the environment variable MLFLOW_TRACKING_URI.
        experiment: created if it does not exist; None is MLFLOW_EXPERIMENT_NAME, or else "Default".

    Example:
        >>> MLflow("http://127.0.0.1:5000", experiment="pets").to_dict()
        {'type': 'MLflow', 'tracking_uri': 'http://127.0.0.1:5000', 'experiment': 'pets'}
    """

    tracking_uri: str | None = None
    experiment: str | None = None

    @field_validator("tracking_uri")
    @classmethod
    def _has_no_password(cls, uri: str | None) -> str | None:
        if uri is not None and "@" in urlsplit(uri).netloc:
            raise ConfigError(
                "should contain no user name or password, as it is written to training_options.json. Use the "
                "environment variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
            )
        return uri

    def make(self) -> keras.callbacks.Callback:
        _check_installed("mlflow", "mlflow")
        uri = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        # Without a server MLflow writes to a database, for which the package of the extra is not enough.
        if (uri is None or uri.startswith("sqlite:")) and find_spec("sqlalchemy") is None:
            raise ConfigError(
                'needs the address of a tracking server: MLflow(tracking_uri="http://..."), or the environment '
                "variable MLFLOW_TRACKING_URI. To record to a local file, run: .venv/bin/pip install mlflow"
            )
        from model_trainer.run.mlflow_callback import MlflowCallback

        return MlflowCallback(self.tracking_uri, self.experiment)


@final
class WeightsAndBiases(Callback):
    """Records the run in Weights & Biases: settings, versions, metrics of epochs and evaluation, report, small files.

    A resumed run continues its run in W&B. A server that does not answer delays training by seconds and does not end
    it. The API key comes from `wandb login` or the environment variable WANDB_API_KEY.

    Fields:
        project: None is the environment variable WANDB_PROJECT, or else "uncategorized".
        entity: user or team; None is WANDB_ENTITY, or else the default of the account.
        mode: "offline" writes to `logs/wandb/` of the output folder only, for `wandb sync` later; None is WANDB_MODE,
            or else "online".

    Example:
        >>> WeightsAndBiases("pets", mode="offline").to_dict()
        {'type': 'WeightsAndBiases', 'project': 'pets', 'entity': None, 'mode': 'offline'}
    """

    project: str | None = None
    entity: str | None = None
    mode: Literal["online", "offline"] | None = None

    def make(self) -> keras.callbacks.Callback:
        _check_installed("wandb", "wandb")
        from model_trainer.run.wandb_callback import WandbCallback

        return WandbCallback(self.project, self.entity, self.mode)


def _check_installed(package: str, extra: str) -> None:
    if find_spec(package) is None:
        raise ConfigError(f"needs the package {package}. Run: .venv/bin/pip install -e '.[{extra}]'")
