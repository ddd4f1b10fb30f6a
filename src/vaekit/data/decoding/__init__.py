"""Decoding of image files, in parallel processes."""
