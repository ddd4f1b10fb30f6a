"""The latent space of a run in a browser."""
