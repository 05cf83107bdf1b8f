"""What a model is on disk: one file, a Diffusers folder, a model card."""
