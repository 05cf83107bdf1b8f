"""Which labels and images of a synthetic set can be believed: `semsynth filter`."""
