"""Synthetic images as training data: filter them, mix them in, measure what a segmenter gains."""
