"""Metrics of predictions, as functions of NumPy arrays: no task, no files, no TensorFlow."""
