"""Run to trained model: devices, precision, optimizer, step, loop, callbacks."""
