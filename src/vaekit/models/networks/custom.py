"""A user's own encoder and decoder, given from Python as modules of torch."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from vaekit.config.networks import CustomConfig
from vaekit.errors import UserError
from vaekit.models.interfaces import Decoder, Encoder
from vaekit.models.registry import BuildContext, register
from vaekit.models.terms import Labels

TRIAL_BATCH_SIZES = (2, 3)
"""Images of the trials: a module that drops the batch axis, or mixes it up with another, shows it from two on; one with
a number of images built in by another."""


@register("encoder", "own")
class CustomEncoder(Encoder):
    """`module` maps images [B, C, H, W] to [B, ...], which is flattened; for a latent image (c, h, w) to [B, F, h, w].

    In a conditional model it is called with the labels [B] as well: module(x, y).
    """

    def __init__(self, settings: CustomConfig, context: BuildContext) -> None:
        super().__init__()
        self.module = _require_module("encoder", settings.name, context)
        self.classes, self.flat = context.classes, len(context.latents) == 1
        shape, grid = context.shape, context.latents[1:]
        wanted = f"[{', '.join(map(str, ('B', 'F', *grid)))}] with any F"
        for batch in TRIAL_BATCH_SIZES:
            output_shape = _trial_shape("encoder", self.module, "images", shape, self.classes, batch, wanted)
            fits = len(output_shape) == 4 and tuple(output_shape[2:]) == grid if grid else len(output_shape) > 1
            if output_shape[:1] != (batch,) or not fits or 0 in output_shape:
                raise UserError(
                    f"The encoder {_name(self.module)} turns images {[batch, *shape]} into {[*output_shape]}, but these "
                    f"latents need {wanted.replace('B', str(batch))}: change what its forward returns."
                )
        self.features = (output_shape[1:].numel(),) if self.flat else tuple(output_shape[1:])

    def forward(self, x: Float[Tensor, "B C H W"], y: Labels | None = None) -> Float[Tensor, "B *features"]:
        out: Tensor = self.module(x, y) if self.classes else self.module(x)
        return out.flatten(1) if self.flat else out


@register("decoder", "own")
class CustomDecoder(Decoder):
    """`module` maps latents [N, D], or [N, c, h, w] of a latent image, to exactly [N, outputs, H, W].

    In a conditional model it is called with the labels [N] as well: module(z, y).
    """

    def __init__(self, settings: CustomConfig, context: BuildContext) -> None:
        super().__init__()
        self.module = _require_module("decoder", settings.name, context)
        self.classes, self.latents = context.classes, context.latents
        shape, latents = context.output_shape, context.latents
        wanted = f"[B, {', '.join(map(str, shape))}]"
        for batch in TRIAL_BATCH_SIZES:
            output_shape = _trial_shape("decoder", self.module, "latents", latents, self.classes, batch, wanted)
            if output_shape != (batch, *shape):
                raise UserError(
                    f"The decoder {_name(self.module)} turns latents {[batch, *latents]} into {[*output_shape]}, but these "
                    f"images and their likelihood need {[batch, *shape]}: change what its forward returns."
                )

    def forward(self, z: Float[Tensor, "N D"], y: Labels | None = None) -> Float[Tensor, "N C H W"]:
        z = z.unflatten(1, self.latents)
        out: Tensor = self.module(z, y) if self.classes else self.module(z)
        return out


def _name(module: nn.Module) -> str:
    return type(module).__name__


def _require_module(slot: str, name: str, context: BuildContext) -> nn.Module:
    if slot in context.modules:
        return context.modules[slot]
    if not name:
        raise UserError(
            f"The {slot} 'own' is a module of yours, given from Python: vaekit.train(images, {slot}=module)."
        )
    raise UserError(
        f"This model's {slot} is your own module {name!r}, which is not stored with the run: give it from Python, "
        f"vaekit.load(run, {slot}=module), or to go on training vaekit.train(.., out=run, resume=True, {slot}=module)."
    )


def _trial_shape(
    slot: str, module: nn.Module, what: str, shape: tuple[int, ...], classes: int, batch: int, wanted: str
) -> torch.Size:
    """The shape that the module makes of `batch` zeros of `shape` (and labels); all about it stays as it was."""
    subject = f"The {slot} {_name(module)}"
    place = next((t.device for t in chain(module.parameters(), module.buffers())), torch.device("cpu"))
    inputs = [torch.zeros(batch, *shape, device=place)]
    inputs += [torch.zeros(batch, dtype=torch.long, device=place)] if classes else []
    call = f"forward({'x' if slot == 'encoder' else 'z'}{', y' if classes else ''})"
    if not _accepts(module, inputs):
        hint = (
            "give it an argument y for the labels, [B] whole numbers, or train without --conditional"
            if classes
            else "give its other arguments defaults, or train with --conditional where they are the labels"
        )
        kind = "conditional" if classes else "not conditional"
        raise UserError(f"{subject} does not fit this model, which is {kind} and calls {call}: {hint}.")
    try:
        with _restored(module, place):
            output_shape = module(*inputs)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        raise UserError(
            f"{subject} fails on {what} {[batch, *shape]}, of which it should make {wanted.replace('B', str(batch))}, "
            f"called as {call}, with {type(error).__name__}: {reason}."
        ) from error
    if not isinstance(output_shape, Tensor):
        raise UserError(
            f"{subject} turns {what} {[batch, *shape]} into a {type(output_shape).__name__}, but one tensor is needed: change what "
            "its forward returns."
        )
    if output_shape.dtype != torch.float32:
        raise UserError(
            f"{subject} turns {what} {[batch, *shape]} into {output_shape.dtype} numbers, but torch.float32 is needed: change its "
            "weights by .float(), or what its forward returns."
        )
    return output_shape.shape


def _accepts(module: nn.Module, inputs: list[Tensor]) -> bool:
    """Whether its forward can be called with these, as far as its signature tells."""
    try:
        inspect.signature(module.forward).bind(*inputs)
    except TypeError:
        return False
    except ValueError:  # no signature, as with compiled code: the trial will tell
        return True
    return True


@contextmanager
def _restored(module: nn.Module, place: torch.device) -> Iterator[None]:
    """Run it for evaluation, then put back its mode and buffers, and torch's random state.

    What a lazy module makes of its first input stays.
    """
    modes = [(owner, owner.training) for owner in module.modules()]
    buffers = [
        (owner, name, buffer, buffer.clone())
        for owner in module.modules()
        for name, buffer in owner.named_buffers(recurse=False)
        if not is_lazy(buffer)
    ]
    with torch.no_grad(), torch.random.fork_rng([place] if place.type == "cuda" else []):
        try:
            module.eval()
            yield
        finally:
            for owner, training in modes:
                owner.training = training
            for owner, name, buffer, before in buffers:
                setattr(owner, name, buffer.copy_(before))
