"""What is scored: folders of images of any system, prepared data, samples; and what is of what."""
