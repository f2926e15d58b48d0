"""Draws samples from trained diffusion models (DDPM) in parallel on Ray."""

__version__ = "0.1.0"
