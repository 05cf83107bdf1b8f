"""A segmentation network, its training and its scores; it evaluates generated images."""
