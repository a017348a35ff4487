"""Data filters on Ray. Importing the package imports nothing heavy."""

__version__ = "0.1.0"
