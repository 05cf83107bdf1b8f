"""What the layouts of annotation tools share: images, categories, and masks drawn from shapes."""
