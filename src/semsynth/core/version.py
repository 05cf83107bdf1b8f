"""The version of the package; the root, the build and every file that records it read it here."""

__version__ = "0.1.0"
