"""A trained model for use elsewhere: published with a model card, or in the format of another library."""
