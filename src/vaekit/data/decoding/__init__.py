"""From image files to pixels, in parallel processes."""
