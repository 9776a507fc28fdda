"""What values show of themselves in a notebook, and how a notebook shows progress."""
