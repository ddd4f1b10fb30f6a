"""A trained model for use elsewhere: published with a model card, or in formats of other programs."""
