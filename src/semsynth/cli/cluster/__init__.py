"""Trainings on clusters: launch, submit, status."""
