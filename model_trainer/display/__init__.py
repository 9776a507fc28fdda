"""The HTML representation of values, and progress, in notebooks."""
