"""Encoders, from images to features, and decoders, from latents to what the likelihood reads.

    encoder(shape=(C, H, W), latents, classes, **settings)(x [B, C, H, W], y) -> [B, *features]
    decoder(shape=(outputs, H, W), latents, classes, **settings)(z [N, D], y) -> [N, outputs, H, W]

`latents` is (D,), a vector, and `features` then (F,); or (c, h, w), a latent image, and `features` then (F, h, w).
`z` is flat in both cases, with D = c*h*w. Importing the package registers every kind.
"""

import vaekit.models.networks.conv
import vaekit.models.networks.custom
import vaekit.models.networks.dense
import vaekit.models.networks.resnet  # noqa: F401  importing registers
