"""Packs: the images of a data set, decoded once and cached on disk."""
