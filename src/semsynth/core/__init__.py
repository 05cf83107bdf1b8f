"""Foundations without any science: errors, atomic files, strict configuration, seeds, progress."""
