"""Encoders, from images to features, and decoders, from latents to the input of the likelihood.

For a latent vector (D,) features are [B, F], for a latent image (c, h, w) [B, F, h, w]; latents are flat in
both cases, [B, D] with D = c*h*w. Importing the package registers every kind.
"""

import vaekit.models.networks.autoencoder_kl
import vaekit.models.networks.conv
import vaekit.models.networks.custom
import vaekit.models.networks.dcae
import vaekit.models.networks.dense
import vaekit.models.networks.resnet  # noqa: F401  importing registers
