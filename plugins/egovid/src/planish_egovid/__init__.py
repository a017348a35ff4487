"""Cleaning and annotating egocentric video; see the README of this package.

Importing the package imports nothing heavy.
"""

__version__ = "0.1.0"
