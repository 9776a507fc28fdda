"""Installs Model Trainer; what is installed stands in pyproject.toml."""

from setuptools import setup

setup()
