"""To and from the official SDM code."""
