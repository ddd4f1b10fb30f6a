"""Strided convolutions, and transposed ones in the decoder."""

from itertools import pairwise

from torch import nn

from vaekit.config.networks import ConvConfig
from vaekit.models.networks.conv_bf16 import Conv2d, ConvTranspose2d
from vaekit.models.networks.dense import ACTIVATIONS
from vaekit.models.networks.pyramid import (
    PyramidDecoder,
    PyramidEncoder,
    Size,
    channel_widths,
    feature_sizes,
    geometry,
)
from vaekit.models.registry import BuildContext, register


def _transposed_geometry(large: Size, small: Size) -> tuple[Size, Size, Size, Size]:
    """The same and the output padding, for a transposed convolution from `small` to exactly `large`."""
    rest = [a - 2 * b if a != b else 0 for a, b in zip(large, small, strict=True)]
    return *geometry(large, small), (rest[0], rest[1])


def _halvings(context: BuildContext) -> list[tuple[Size, Size]]:
    """(large, small) for every convolution; a single pair of equal sizes where nothing is halved."""
    sizes = feature_sizes(context.shape, context.latents)
    return list(pairwise(sizes)) or [(sizes[0], sizes[0])]


@register("encoder", "conv")
class ConvEncoder(PyramidEncoder):
    """Convolutions, then for a latent vector the dense layers `hidden`."""

    def __init__(self, settings: ConvConfig, context: BuildContext) -> None:
        activation = ACTIVATIONS[settings.activation]
        steps = _halvings(context)
        widths = channel_widths(settings.channels, len(steps))
        super().__init__(context, Conv2d(context.shape[0], widths[0], *geometry(*steps[0])))
        layers: list[nn.Module] = [activation()]
        for (before, after), step in zip(pairwise(widths), steps[1:], strict=True):
            layers += [Conv2d(before, after, *geometry(*step)), activation()]
        self._finish(
            layers, (widths[-1], *steps[-1][1]), context.latents, settings.hidden, settings.activation
        )


@register("decoder", "conv")
class ConvDecoder(PyramidDecoder):
    """The mirror image of `ConvEncoder`."""

    def __init__(self, settings: ConvConfig, context: BuildContext) -> None:
        activation = ACTIVATIONS[settings.activation]
        steps = _halvings(context)[::-1]
        widths = channel_widths(settings.channels, len(steps))[::-1]
        smallest = (widths[0], *steps[0][1])
        super().__init__(context, smallest, settings.hidden, settings.activation, closed=True)
        layers: list[nn.Module] = [nn.Unflatten(1, smallest) if len(context.latents) == 1 else activation()]
        for (before, after), step in zip(pairwise([*widths, context.outputs]), steps, strict=True):
            layers += [ConvTranspose2d(before, after, *_transposed_geometry(*step)), activation()]
        self.layers = nn.Sequential(*layers[:-1])
