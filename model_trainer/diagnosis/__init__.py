"""What went wrong, and why it was slow."""
