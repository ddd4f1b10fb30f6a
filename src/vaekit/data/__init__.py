"""Images in: files to a pack, a pack to batches."""
