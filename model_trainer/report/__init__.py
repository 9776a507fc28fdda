"""Figures and findings as something to look at."""
