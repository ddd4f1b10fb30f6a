"""The whole configuration of a run: one validated tree, free of torch."""
