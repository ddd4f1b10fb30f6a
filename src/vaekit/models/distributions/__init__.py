"""Distributions of latents and of images."""
