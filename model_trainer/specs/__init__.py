"""Specs of backbones: `ModelSpec`, the preprocess functions, and the table of all keras.applications models."""

from model_trainer.specs.mismatch import preprocessing_mismatch
from model_trainer.specs.model_spec import ModelSpec
from model_trainer.specs.table import TABLE, TableEntry, minimum_size, table_name

__all__ = ["TABLE", "ModelSpec", "TableEntry", "minimum_size", "preprocessing_mismatch", "table_name"]
