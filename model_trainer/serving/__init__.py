"""Model file to answers."""
