"""The names and shapes of the official SDM weights."""
