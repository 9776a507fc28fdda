"""Everything that a run declares: values only, no TensorFlow is loaded."""
