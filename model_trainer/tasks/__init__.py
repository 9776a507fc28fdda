"""Tasks, one file each: the head, loss and metrics of a network, and the decoding of its predictions.

Importing any task registers all of them, so that each can be read back from JSON.
"""

from model_trainer.tasks.classification import Classification
from model_trainer.tasks.multi_label import MultiLabel
from model_trainer.tasks.task import Task

__all__ = ["Classification", "MultiLabel", "Task"]
