"""Backbone and head as two stages, and the copy of them that trains."""
