"""Training images that come back among the generated ones."""
