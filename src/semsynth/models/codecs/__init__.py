"""From images to what the network sees, and back."""
