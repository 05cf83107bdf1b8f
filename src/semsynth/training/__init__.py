"""Training of the generator: the only room with an optimizer for it."""
