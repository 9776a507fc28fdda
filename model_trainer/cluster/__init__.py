"""Distributed training: which processes train together, how they find each other, and restarts."""
