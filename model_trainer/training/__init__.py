"""Training: devices, precision, the training step, the loop over epochs, callbacks and checkpoints."""
