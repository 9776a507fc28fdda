"""Tables of images and labels: CSV, TSV, JSON and JSON Lines."""

from model_trainer.sources.manifest.manifest import Manifest

__all__ = ["Manifest"]
