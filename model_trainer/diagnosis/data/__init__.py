"""Finds problems in a data set before GPU time is spent on it: `examine("data")`."""

from model_trainer.diagnosis.data.diagnosis import Diagnosis
from model_trainer.diagnosis.data.doctor import run_doctor
from model_trainer.diagnosis.data.examine import examine
from model_trainer.diagnosis.data.splits import run_file_of
from model_trainer.findings.finding import Example, Finding

__all__ = ["Diagnosis", "Example", "Finding", "examine", "run_doctor", "run_file_of"]
