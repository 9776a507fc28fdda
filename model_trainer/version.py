"""The version, in a file of its own: setup.py reads it without importing anything."""

__version__ = "0.1.0"
