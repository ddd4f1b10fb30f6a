"""The latent space of a trained model."""
