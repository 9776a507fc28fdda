"""Examples to batches: order, decode, resize, augment."""
