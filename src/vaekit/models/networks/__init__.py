"""Encoders, from images to features, and decoders, from latents to the input of the likelihood.

    encoder(x [B, C, H, W], y) -> [B, *features]
    decoder(z [N, D], y) -> [N, outputs, H, W]

For a latent vector (D,) `features` is (F,), for a latent image (c, h, w) it is (F, h, w). `z` is flat in both
cases, with D = c*h*w. Importing the package registers every kind.
"""

import vaekit.models.networks.conv
import vaekit.models.networks.custom
import vaekit.models.networks.dense
import vaekit.models.networks.resnet  # noqa: F401  importing registers
