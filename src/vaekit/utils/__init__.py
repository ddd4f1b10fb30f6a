"""Files, random numbers, logging, devices: nothing that knows a VAE."""
