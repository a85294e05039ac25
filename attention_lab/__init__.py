"""A laboratory in which attention variants are certified, trained and compared."""

__version__ = "0.1.0"
