"""Segue: from what a customer just did to what comes next."""

__version__ = "0.1.0"
