"""What a run declares. Importing it loads no TensorFlow; `fused_adam.py` is loaded when an optimizer is made."""
