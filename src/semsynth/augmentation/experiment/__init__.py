"""What synthesis adds to the strongest segmenter of few real images: draws, arms, intervals."""
