"""Encoders and decoders that the user passes from Python as torch modules."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from vaekit.config.networks import CustomConfig
from vaekit.errors import UserError, setting
from vaekit.models.interfaces import Decoder, Encoder
from vaekit.models.registry import BuildContext, register
from vaekit.models.terms import Images, Labels

TRIAL_BATCH_SIZES = (2, 3)
"""Batch sizes tried: with two a module that drops or mixes up the batch axis is found, with another one that
has a fixed batch size built in."""

CHANGE_FORWARD = "Change what its forward returns."


@register("encoder", "own")
class CustomEncoder(Encoder):
    """A user's module from images [B, C, H, W] to [B, ...], which is flattened; for a latent image (c, h, w)
    to [B, F, h, w]. In a conditional model it is called with the labels too: module(x, y)."""

    def __init__(self, settings: CustomConfig, context: BuildContext) -> None:
        super().__init__()
        self.module = _require_module("encoder", settings.name, context)
        self.classes, self.flat = context.classes, len(context.latents) == 1
        shape, grid = context.shape, context.latents[1:]
        expected = f"[{', '.join(map(str, ('B', 'F', *grid)))}] with any F"
        for batch in TRIAL_BATCH_SIZES:
            result = _trial_shape("encoder", self.module, "images", shape, self.classes, batch, expected)
            fits = len(result) == 4 and tuple(result[2:]) == grid if grid else len(result) > 1
            if result[:1] != (batch,) or not fits or 0 in result:
                raise UserError(
                    f"The encoder {_name(self.module)} returns {[*result]} for images {[batch, *shape]}; "
                    f"the latents need {expected.replace('B', str(batch))}.",
                    CHANGE_FORWARD,
                )
        self.features = (result[1:].numel(),) if self.flat else tuple(result[1:])

    def forward(self, x: Images, y: Labels | None = None) -> Float[Tensor, "B *features"]:
        out: Tensor = self.module(x, y) if self.classes else self.module(x)
        return out.flatten(1) if self.flat else out


@register("decoder", "own")
class CustomDecoder(Decoder):
    """A user's module from latents [N, D], or [N, c, h, w] of a latent image, to exactly [N, outputs, H, W].
    In a conditional model it is called with the labels too: module(z, y)."""

    def __init__(self, settings: CustomConfig, context: BuildContext) -> None:
        super().__init__()
        self.module = _require_module("decoder", settings.name, context)
        self.classes, self.latents = context.classes, context.latents
        shape, latents = context.output_shape, context.latents
        expected = f"[B, {', '.join(map(str, shape))}]"
        for batch in TRIAL_BATCH_SIZES:
            result = _trial_shape("decoder", self.module, "latents", latents, self.classes, batch, expected)
            if result != (batch, *shape):
                raise UserError(
                    f"The decoder {_name(self.module)} returns {[*result]} for latents {[batch, *latents]}; "
                    f"the images and their likelihood need {[batch, *shape]}.",
                    CHANGE_FORWARD,
                )

    def forward(self, z: Float[Tensor, "N D"], y: Labels | None = None) -> Float[Tensor, "N C H W"]:
        z = z.unflatten(1, self.latents)
        return self.module(z, y) if self.classes else self.module(z)


def _name(module: nn.Module) -> str:
    return type(module).__name__


def _require_module(slot: str, name: str, context: BuildContext) -> nn.Module:
    if slot in context.modules:
        return context.modules[slot]
    if not name:
        raise UserError(
            f"The {slot} 'own' is a module that is passed from Python.",
            f"Use vaekit.train(images, {slot}=module).",
        )
    raise UserError(
        f"The {slot} of this model is a custom module, {name!r}, which is not stored with the run.",
        f"Pass it to vaekit.load(run, {slot}=module), or to resume training to "
        f"vaekit.train(..., out=run, resume=True, {slot}=module).",
    )


def _trial_shape(
    slot: str, module: nn.Module, what: str, shape: tuple[int, ...], classes: int, batch: int, expected: str
) -> torch.Size:
    """The shape that the module returns for `batch` zeros of `shape` (and labels); the module is left
    unchanged."""
    name, size = f"{slot} {_name(module)}", [batch, *shape]
    place = next((t.device for t in chain(module.parameters(), module.buffers())), torch.device("cpu"))
    inputs = [torch.zeros(batch, *shape, device=place)]
    inputs += [torch.zeros(batch, dtype=torch.long, device=place)] if classes else []
    call = f"forward({'x' if slot == 'encoder' else 'z'}{', y' if classes else ''})"
    if not _accepts(module, inputs):
        if classes:
            hint = f"Add an argument y for the labels, integers [B], or omit {setting('conditional', True)}."
        else:
            hint = f"Give other arguments defaults, or if they are labels use {setting('conditional', True)}."
        kind = "A conditional model" if classes else "A model without labels"
        raise UserError(f"{kind} calls {call}, which the {name} does not accept.", hint)
    try:
        with _restored(module, place):
            result = module(*inputs)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        raise UserError(
            f"The {name} fails on {what} {size}, called as {call}: {type(error).__name__}: {reason}.",
            f"It should return {expected.replace('B', str(batch))}.",
        ) from error
    if not isinstance(result, Tensor):
        raise UserError(
            f"The {name} returns a {type(result).__name__} for {what} {size}; it has to return one tensor.",
            CHANGE_FORWARD,
        )
    if result.dtype != torch.float32:
        raise UserError(
            f"The {name} returns {result.dtype} for {what} {size}; it has to return torch.float32.",
            "Convert its weights with .float(), or change what its forward returns.",
        )
    return result.shape


def _accepts(module: nn.Module, inputs: list[Tensor]) -> bool:
    """Whether the signature of its forward accepts these inputs."""
    try:
        inspect.signature(module.forward).bind(*inputs)
    except TypeError:
        return False
    except ValueError:  # compiled code has no signature: the trial decides
        return True
    return True


@contextmanager
def _restored(module: nn.Module, place: torch.device) -> Iterator[None]:
    """Evaluation mode within the context; afterwards the module's mode and buffers and the random state are
    restored.

    Parameters that a lazy module creates stay.
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
