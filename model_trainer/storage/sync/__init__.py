"""`model-trainer sync`: copies a folder to an object store, from one, or between two of them."""
