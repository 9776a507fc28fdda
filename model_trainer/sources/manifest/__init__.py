"""Manifests, tables of image paths and labels: CSV, TSV, JSON, JSON Lines and Parquet."""

from model_trainer.sources.manifest.manifest import Manifest

__all__ = ["Manifest"]
