"""What a network learns: head, loss, metrics and the decoding of its predictions; one file for each task.

Importing any task registers all, so that each can be read back from JSON.
"""

from model_trainer.tasks.classification import Classification
from model_trainer.tasks.multi_label import MultiLabel
from model_trainer.tasks.task import Task

__all__ = ["Classification", "MultiLabel", "Task"]
