"""The declared values of a run: `Run`, `Training`, `Network`, optimizers, schedules, callbacks and observers.

Importing this package loads no TensorFlow; `fused_adam.py` is loaded when an optimizer is made.
"""
