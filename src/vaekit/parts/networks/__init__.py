"""Encoders, from images to features, and decoders, from latents to what the likelihood reads.

    encoder(shape=(C, H, W), latents, classes, **settings)(x [B, C, H, W], y) -> [B, *features]
    decoder(shape=(outputs, H, W), latents, classes, **settings)(z [N, D], y) -> [N, outputs, H, W]

`latents` is (D,), a vector, and `features` then (F,); or (c, h, w), a latent image, and `features` then (F, h, w).
`z` is flat in both cases, with D = c*h*w. Importing the package registers every kind.
"""

import vaekit.parts.networks.conv
import vaekit.parts.networks.dense
import vaekit.parts.networks.own
import vaekit.parts.networks.resnet  # noqa: F401  importing registers
