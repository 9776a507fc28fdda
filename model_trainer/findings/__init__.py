"""Findings of diagnosis rules: a problem, its evidence, and the suggested change."""
