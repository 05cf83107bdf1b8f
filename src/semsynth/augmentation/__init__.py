"""The closed loop: generate, filter, mix, and measure what it gained a segmenter."""
