"""A trained generator: from label maps to images, and its files."""
