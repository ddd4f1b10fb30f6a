"""Encoders and decoders that the user passes from Python as torch modules."""

import inspect
import math
from collections.abc import Callable, Iterator
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
"""Two, since a module may drop the batch axis or have a fixed batch size built in."""

CHANGE_FORWARD = "Change what its forward returns."

Shape = tuple[int, ...]


@register("encoder", "own")
class CustomEncoder(Encoder):
    """A user's module from images [B, C, H, W] to [B, ...], which is flattened, or for a latent image to
    [B, F, h, w]; in a conditional model it is called as module(x, y), y classes [B] or conditions [B, K]."""

    def __init__(self, settings: CustomConfig, context: BuildContext) -> None:
        super().__init__()
        self.module = _require_module("encoder", settings.name, context)
        self.classes, self.flat = context.classes, len(context.latents) == 1
        grid = context.latents[1:]

        def fits(shape: Shape) -> bool:
            right = len(shape) > 0 if self.flat else len(shape) == 3 and shape[1:] == grid
            return right and 0 not in shape

        expected = f"[{', '.join(map(str, ('B', 'F', *grid)))}] with any F"
        shape = _check_shapes("encoder", self.module, context, expected, fits)
        self.features = (math.prod(shape),) if self.flat else shape

    def forward(self, x: Images, y: Labels | None = None) -> Float[Tensor, "B *features"]:
        out: Tensor = self.module(x, y) if self.classes else self.module(x)
        return out.flatten(1) if self.flat else out


@register("decoder", "own")
class CustomDecoder(Decoder):
    """A user's module from latents [N, D] or [N, c, h, w] to exactly [N, outputs, H, W]; in a conditional
    model it is called as module(z, y)."""

    def __init__(self, settings: CustomConfig, context: BuildContext) -> None:
        super().__init__()
        self.module = _require_module("decoder", settings.name, context)
        self.classes, self.latents = context.classes, context.latents
        shape = context.output_shape
        expected = f"[B, {', '.join(map(str, shape))}]"
        _check_shapes("decoder", self.module, context, expected, shape.__eq__)

    def forward(self, z: Float[Tensor, "N D"], y: Labels | None = None) -> Float[Tensor, "N C H W"]:
        z = z.unflatten(1, self.latents)
        return self.module(z, y) if self.classes else self.module(z)


def _require_module(slot: str, name: str, context: BuildContext) -> nn.Module:
    if slot in context.modules:
        return context.modules[slot]
    if not name:
        hint = f"Use vaekit.train(images, {slot}=module)."
        raise UserError(f"The {slot} 'own' is a module that is passed from Python.", hint)
    raise UserError(
        f"The {slot} of this model is a custom module, {name!r}, which is not stored with the run.",
        f"Pass it to vaekit.load(run, {slot}=module), or to resume training to "
        f"vaekit.train(..., out=run, resume=True, {slot}=module).",
    )


def _check_shapes(
    slot: str, module: nn.Module, context: BuildContext, expected: str, fits: Callable[[Shape], bool]
) -> Shape:
    """The shape that the module returns for one image or latent, which has to fit for every batch size."""
    encoder = slot == "encoder"
    what, shape = ("images", context.shape) if encoder else ("latents", context.latents)
    user = "the latents need" if encoder else "the images and their likelihood need"
    for batch in TRIAL_BATCH_SIZES:
        needed = expected.replace("B", str(batch))
        result = _trial_shape(slot, module, what, (batch, *shape), context, needed)
        if result[:1] != (batch,) or not fits(tuple(result[1:])):
            returned = f"{type(module).__name__} returns {[*result]} for {what} {[batch, *shape]}"
            raise UserError(f"The {slot} {returned}; {user} {needed}.", CHANGE_FORWARD)
    return tuple(result[1:])


def _trial_shape(
    slot: str, module: nn.Module, what: str, shape: Shape, context: BuildContext, needed: str
) -> torch.Size:
    """The shape that the module returns for zeros of `shape` (and labels); the module is left unchanged."""
    classes = context.classes
    name, inputs_text = f"{slot} {type(module).__name__}", f"{what} {[*shape]}"
    place = next((t.device for t in chain(module.parameters(), module.buffers())), torch.device("cpu"))
    inputs = [torch.zeros(shape, device=place)]
    if classes:
        label = torch.zeros(shape[0], classes) if context.vector else torch.zeros(shape[0], dtype=torch.long)
        inputs.append(label.to(place))
    call = f"forward({'x' if slot == 'encoder' else 'z'}{', y' if classes else ''})"
    if not _accepts(module, inputs):
        if context.vector:
            numbers = f"the conditions, numbers [B, {classes}]"
            hint = f"Add an argument y for {numbers}, or omit {setting('condition')}."
        elif classes:
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
            f"The {name} fails on {inputs_text}, called as {call}: {type(error).__name__}: {reason}.",
            f"It should return {needed}.",
        ) from error
    if not isinstance(result, Tensor):
        raise UserError(
            f"The {name} returns a {type(result).__name__} for {inputs_text}; it has to return one tensor.",
            CHANGE_FORWARD,
        )
    if result.dtype != torch.float32:
        raise UserError(
            f"The {name} returns {result.dtype} for {inputs_text}; it has to return torch.float32.",
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
        pass
    return True


@contextmanager
def _restored(module: nn.Module, place: torch.device) -> Iterator[None]:
    """Evaluation mode; on exit the module's mode and buffers and the random state are restored. Parameters
    that a lazy module creates stay."""
    modes = [(owner, owner.training) for owner in module.modules()]
    named = [(owner, *item) for owner in module.modules() for item in owner.named_buffers(recurse=False)]
    buffers = [(*item, item[-1].clone()) for item in named if not is_lazy(item[-1])]
    with torch.no_grad(), torch.random.fork_rng([place] if place.type == "cuda" else []):
        try:
            module.eval()
            yield
        finally:
            for owner, training in modes:
                owner.training = training
            for owner, name, buffer, before in buffers:
                setattr(owner, name, buffer.copy_(before))
