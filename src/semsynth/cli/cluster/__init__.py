"""Verbs for clusters: launch, submit, status."""
