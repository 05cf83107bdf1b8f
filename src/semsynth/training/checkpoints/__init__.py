"""The full training state on disk."""
