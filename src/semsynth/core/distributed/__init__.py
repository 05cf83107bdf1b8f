"""Processes that work together, and how one job owns a run folder."""
