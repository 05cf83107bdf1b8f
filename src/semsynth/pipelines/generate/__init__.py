"""Samples of masks: which ones, with which seeds, each generated once."""
