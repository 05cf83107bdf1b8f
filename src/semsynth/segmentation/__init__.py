"""A segmentation network, its training and its scores: the judge of generated images."""
