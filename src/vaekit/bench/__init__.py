"""Benchmarks of vaekit against bare PyTorch code on this machine."""
