"""Files of images and masks of any kind, read as they are; what is in doubt is one clear line."""
