"""The phase ``distill``: a denoiser becomes a generator of a few evaluations."""
