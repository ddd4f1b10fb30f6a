"""The run folder: what is written, and what is read back."""
