"""The mathematics of diffusion; takes any denoiser, knows no network and no data."""
