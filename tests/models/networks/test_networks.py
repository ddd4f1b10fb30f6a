"""Encoders and decoders: every kind at many sizes, for latent vectors and latent images; custom modules."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vaekit.models.networks  # noqa: F401  registers components
from command import refused, user_error
from vaekit.config.config import settings_classes
from vaekit.errors import UserError
from vaekit.models.networks.dcae import Downsample, Upsample
from vaekit.models.networks.patches import depth_to_space, space_to_depth
from vaekit.models.registry import BuildContext, components, make_component

Shape = tuple[int, ...]
SLOTS = ("encoder", "decoder")
PADDING = ("dcae", "autoencoder_kl")
"""Networks that pad images whose sides cannot be halved."""
KINDS = [kind for kind in components("encoder") if kind != "own"]
SHAPES = [(1, 28, 28), (3, 13, 21), (1, 5, 3), (4, 40, 7), (2, 1, 1)]
GRIDS = {
    (1, 28, 28): [(28, 28), (14, 14), (7, 7)],
    (3, 13, 21): [(13, 21), (6, 10), (6, 5)],
    (1, 5, 3): [(5, 3)],
    (4, 40, 7): [(40, 7), (20, 7), (10, 7), (5, 7)],
    (2, 1, 1): [(1, 1)],
}
"""Possible sizes of a latent image, by hand: sides of 8 pixels and more are halved, rounding down."""
PADDED_GRIDS = {
    (1, 28, 28): [(28, 28), (14, 14), (7, 7), (4, 4)],
    (3, 13, 21): [(13, 21), (7, 11), (4, 6), (2, 3), (1, 2)],
    (1, 5, 3): [(5, 3), (3, 2), (2, 1)],
    (4, 40, 7): [(40, 7), (20, 4), (10, 2), (5, 1)],
    (2, 1, 1): [(1, 1)],
}
"""Those of networks that pad: both sides are divided by a power of two, rounding up."""


def make(slot: str, kind: str, shape: Any, latents: Shape, classes: int = 0, **settings: Any) -> Any:
    """A decoder's `shape` is that of its outputs."""
    modules = {slot: module} if (module := settings.pop("module", None)) is not None else {}
    context = BuildContext(shape, latents, classes, outputs=shape[0], modules=modules)
    return make_component(slot, settings_classes(slot)[kind](**settings), context)


def knows_latent_images(kind: str) -> bool:
    try:
        make("encoder", kind, (1, 28, 28), (3, 7, 7))
    except UserError:
        return False
    return True


VECTOR_ONLY = {kind for kind in KINDS if not knows_latent_images(kind)}
VECTORS: list[tuple[str, Shape, Shape]] = [(kind, shape, (3,)) for kind in KINDS for shape in SHAPES]
LATENT_IMAGES = [kind for kind in KINDS if kind not in VECTOR_ONLY]
IMAGES = [
    (kind, shape, (3, *grid))
    for kind in LATENT_IMAGES
    for shape, grids in (PADDED_GRIDS if kind in PADDING else GRIDS).items()
    for grid in grids
]


def labels(conditional: bool, count: int = 2) -> Tensor | None:
    return torch.arange(count) % 3 if conditional else None


def test_every_encoder_has_its_decoder() -> None:
    assert set(components("encoder")) == set(components("decoder"))


@pytest.mark.parametrize("conditional", [False, True], ids=["plain", "conditional"])
@pytest.mark.parametrize(("kind", "shape", "latents"), VECTORS + IMAGES, ids=str)
def test_shapes_and_gradients(kind: str, shape: Shape, latents: Shape, conditional: bool) -> None:
    classes, y = 3 if conditional else 0, labels(conditional, 6)
    encoder = make("encoder", kind, shape, latents, classes)
    decoder = make("decoder", kind, (5, *shape[1:]), latents, classes)
    features = encoder(torch.rand(6, *shape), y)
    assert features.shape == (6, *encoder.features)
    assert encoder.features[1:] == latents[1:]
    output = decoder(torch.randn(6, latents[0] * torch.Size(latents[1:]).numel()), y)
    assert output.shape == (6, 5, *shape[1:])
    (features.square().mean() + output.square().mean()).backward()
    for slot in (encoder, decoder):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in slot.parameters())


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 3)], ids=str)
@pytest.mark.parametrize("latents", [(1,), (2,)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_networks_train_on_one_tiny_image(kind: str, latents: tuple[int], size: tuple[int, int]) -> None:
    narrow: dict[str, Any] = {"channels": 8} if kind not in VECTOR_ONLY else {}
    x = torch.rand(1, 1, *size)
    features = make("encoder", kind, (1, *size), latents, 0, **narrow).train()(x)
    output = make("decoder", kind, (1, *size), latents, 0, **narrow).train()(torch.randn(1, *latents))
    assert output.shape == x.shape
    assert features.isfinite().all()
    assert output.isfinite().all()


def test_space_to_depth_is_pixel_unshuffle_with_pixels_before_channels() -> None:
    x = torch.arange(2 * 3 * 8 * 12.0).reshape(2, 3, 8, 12)
    h = space_to_depth(x, 4)
    torch.testing.assert_close(depth_to_space(h, 4), x)
    expected = nn.functional.pixel_unshuffle(x, 4).unflatten(1, (3, 16)).transpose(1, 2).flatten(1, 2)
    torch.testing.assert_close(h, expected)


@pytest.mark.parametrize("after", [8, 16])
def test_shortcuts_of_changing_resolution_are_averages_and_their_repetition(after: int) -> None:
    """Without their convolutions: of all four pixels of a patch, or where channels double, of each two."""
    down, up = Downsample(8, after), Upsample(after, 8)
    for layer in (down, up):
        nn.init.zeros_(layer.conv.weight)
        nn.init.zeros_(layer.conv.bias)
    h = torch.randn(2, 8, 4, 6)
    expected = h.unflatten(3, (-1, 2)).mean(4)
    if after == 8:
        expected = expected.unflatten(2, (-1, 2)).mean(3).repeat_interleave(2, 2)
    torch.testing.assert_close(up(down(h)), expected.repeat_interleave(2, 3))


def test_group_norm_never_has_a_single_value() -> None:
    """It would always be 0, and the output the same for every one-pixel image."""
    for channels in (8, 16, 24, 32):
        encoder = make("encoder", "resnet", (1, 1, 1), (2,), 0, channels=channels)
        norms = [m for m in encoder.modules() if isinstance(m, nn.GroupNorm)]
        assert all(norm.num_channels > norm.num_groups for norm in norms)
        assert encoder(torch.rand(4, 1, 1, 1)).std(0).max() > 1e-3


@pytest.mark.parametrize("latents", [(3,), (2, 4, 4)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_labels_change_the_output(kind: str, latents: tuple[int, ...]) -> None:
    if len(latents) > 1 and kind in VECTOR_ONLY:
        return
    for slot, size in (("encoder", (1, 8, 8)), ("decoder", (torch.Size(latents).numel(),))):
        network = make(slot, kind, (1, 8, 8), latents, 3)
        h = torch.rand(1, *size).expand(3, *size)
        assert network(h, torch.arange(3)).flatten(1).std(0).max() > 1e-3


@pytest.mark.parametrize("kind", LATENT_IMAGES)
def test_latent_image_is_local(kind: str) -> None:
    """A change in a corner of the latent image changes that corner of the picture most; normalization over
    all pixels passes a little of it to the others."""
    settings = {"attention": False} if kind in ("resnet", "autoencoder_kl") else {}
    decoder = make("decoder", kind, (1, 32, 32), (2, 8, 8), 0, **settings).eval()
    assert not any(isinstance(m, nn.Linear) for m in decoder.modules())
    z = torch.randn(1, 2, 8, 8)
    other = z.clone()
    other[..., :2, :2] += 1
    change = (decoder(other.flatten(1)) - decoder(z.flatten(1))).abs()
    assert change[..., :8, :8].mean() > 8 * change[..., -8:, -8:].mean()


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("kind", sorted(VECTOR_ONLY))
def test_dense_networks_reject_a_latent_image(slot: str, kind: str) -> None:
    with user_error(f"^The {slot} '{kind}' .* image 2x7x7. Use encoder={{'kind': 'conv'}} .*latents=98.$"):
        make(slot, kind, (1, 28, 28), (2, 7, 7), 0)


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("kind", LATENT_IMAGES)
def test_latent_image_of_wrong_size_is_rejected(slot: str, kind: str) -> None:
    smallest = "'4x1x1' or 4x2x2 or 4x4x4 or 4x7x7" if kind in PADDING else "'4x7x7'"
    with user_error(rf"^A latent image of 8x8 .* 28x28\. Use latents={smallest} or 4x14x14 or 4x28x28\.$"):
        make(slot, kind, (1, 28, 28), (4, 8, 8), 0)


def test_gated_layers_are_the_formula() -> None:
    """h = (W x + b) * sigmoid(V x + c), Tomczak & Welling 2018; the first x ends with the label."""
    encoder = make("encoder", "gated_mlp", (1, 2, 3), (2,), 3, hidden=(5, 4))
    decoder = make("decoder", "gated_mlp", (1, 2, 3), (2,), 0, hidden=(5, 4))
    x, y, z = torch.rand(7, 1, 2, 3), torch.arange(7) % 3, torch.randn(7, 2)

    def gated(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        (W, V), (b, c) = weight.chunk(2), bias.chunk(2)
        return (h @ W.T + b) * torch.sigmoid(h @ V.T + c)

    names = ["first.bias", "first.weight", "label.bias.weight", "rest.1.bias", "rest.1.weight"]
    weights = {name.removeprefix("layers."): value for name, value in encoder.state_dict().items()}
    assert not weights.pop("mean").any()
    assert sorted(weights) == names
    first = torch.cat([weights["first.weight"], weights["label.bias.weight"].T], 1)
    h = torch.cat([x.flatten(1), torch.eye(3)[y]], 1)
    h = gated(gated(h, first, weights["first.bias"]), weights["rest.1.weight"], weights["rest.1.bias"])
    torch.testing.assert_close(encoder(x, y), h)

    weights = {name.removeprefix("layers."): value for name, value in decoder.state_dict().items()}
    h = gated(z, weights["first.weight"], weights["first.bias"])
    assert h.shape == (7, 4)
    h = gated(h, weights["rest.1.weight"], weights["rest.1.bias"])
    h = h @ weights["rest.3.weight"].T + weights["rest.3.bias"]
    torch.testing.assert_close(decoder(z), h.reshape(7, 1, 2, 3))


@pytest.mark.parametrize("kind", sorted(VECTOR_ONLY))
def test_without_hidden_layers_the_decoder_is_linear(kind: str) -> None:
    encoder = make("encoder", kind, (1, 2, 2), (3,), 0, hidden=())
    decoder = make("decoder", kind, (1, 2, 2), (3,), 0, hidden=())
    assert encoder.features == (4,)
    a, b, zero = torch.randn(1, 3), torch.randn(1, 3), torch.zeros(1, 3)
    torch.testing.assert_close(decoder(a + b) + decoder(zero), decoder(a) + decoder(b))


class Custom(nn.Module):
    """Returns what `answer` makes of its input."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.answer = answer

    def forward(self, h: Tensor) -> Any:
        answer = self.answer(h)
        return answer * self.scale if isinstance(answer, Tensor) and answer.is_floating_point() else answer


class CustomWithLabels(Custom):
    """Adds the label to it."""

    def forward(self, h: Tensor, y: Tensor) -> Any:
        made = super().forward(h)
        return made + y.reshape(-1, *[1] * (made.ndim - 1))


def custom(slot: str, module: Any, latents: Shape = (4,), classes: int = 0, name: str = "") -> Any:
    return make(slot, "own", (1, 6, 6), latents, classes, name=name, module=module)


@pytest.mark.parametrize("conditional", [False, True], ids=["plain", "conditional"])
@pytest.mark.parametrize("latents", [(9,), (1, 3, 3)], ids=str)
def test_custom_modules_are_called(latents: tuple[int, ...], conditional: bool) -> None:
    module, classes = (CustomWithLabels, 3) if conditional else (Custom, 0)
    y = labels(conditional, 5)
    shift = torch.zeros(5, 1, 1, 1) if y is None else y.reshape(5, 1, 1, 1)
    encoder = custom("encoder", module(lambda x: x[:, :, ::2, ::2]), latents, classes)
    assert encoder.features == latents
    x, z, seen = torch.rand(5, 1, 6, 6), torch.randn(5, 9), set()
    torch.testing.assert_close(encoder(x, y), (x[:, :, ::2, ::2] + shift).reshape(5, *latents))

    def answer(z: Tensor) -> Tensor:
        seen.add(tuple(z.shape[1:]))
        return z.reshape(-1, 1, 3, 3).repeat(1, 1, 2, 2)

    decoder = custom("decoder", module(answer), latents, classes)
    torch.testing.assert_close(decoder(z, y), z.reshape(5, 1, 3, 3).repeat(1, 1, 2, 2) + shift)
    assert seen == {latents}


def test_custom_modules_are_trained_and_initialized() -> None:
    module = Custom(lambda x: x)
    encoder = custom("encoder", module)
    assert list(encoder.state_dict()) == ["module.scale"]
    encoder(torch.rand(2, 1, 6, 6)).sum().backward()
    assert module.scale.grad is not None
    layers = nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(7)
    encoder = custom("encoder", nn.Sequential(*layers))
    assert encoder.features == (7,)
    assert encoder(torch.rand(3, 1, 6, 6)).shape == (3, 7)


def test_trial_leaves_module_and_random_state_unchanged() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.drop, self.out = nn.BatchNorm2d(1), nn.Dropout(), nn.Linear(36, 3)
            self.register_buffer("calls", torch.zeros(()), persistent=False)
            self.norm.eval()  # frozen by its owner

        def forward(self, x: Tensor) -> Tensor:
            self.calls = self.calls + 1
            self.norm.running_mean += 1
            return self.out(self.drop(self.norm(x)).flatten(1) + torch.randn(36))

    module = Counting()
    before, state = {k: v.clone() for k, v in module.state_dict().items()}, torch.get_rng_state()
    encoder = custom("encoder", module)
    assert encoder.features == (3,)
    assert torch.equal(torch.get_rng_state(), state)
    assert module.calls == 0
    assert (module.training, module.norm.training, module.drop.training) == (True, False, True)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in module.parameters())


@pytest.mark.parametrize(
    ("slot", "answer", "latents", "given", "returned", "needed"),
    [
        ("decoder", lambda z: z.new_zeros(2, 6, 6), (4,), [2, 4], [2, 6, 6], "[2, 1, 6, 6]"),
        ("decoder", lambda z: z.new_zeros(2, 36), (4,), [2, 4], [2, 36], "[2, 1, 6, 6]"),
        ("decoder", lambda z: z, (4, 3, 3), [2, 4, 3, 3], [2, 4, 3, 3], "[2, 1, 6, 6]"),
        ("encoder", lambda x: x[0], (4,), [2, 1, 6, 6], [1, 6, 6], "[2, F] with any F"),
        ("encoder", lambda x: x.sum((1, 2, 3)), (4,), [2, 1, 6, 6], [2], "[2, F] with any F"),
        ("encoder", lambda x: x.sum(), (4,), [2, 1, 6, 6], [], "[2, F] with any F"),
        ("encoder", lambda x: x[:, :0], (4,), [2, 1, 6, 6], [2, 0, 6, 6], "[2, F] with any F"),
        ("encoder", lambda x: x, (4, 3, 3), [2, 1, 6, 6], [2, 1, 6, 6], "[2, F, 3, 3]"),
        ("encoder", lambda x: x.flatten(1), (4, 3, 3), [2, 1, 6, 6], [2, 36], "[2, F, 3, 3]"),
        ("encoder", lambda x: x.flatten(1)[:2], (4,), [3, 1, 6, 6], [2, 36], "[3, F]"),
    ],
)
def test_wrong_shapes_of_custom_modules(
    slot: str, answer: Any, latents: Shape, given: list[int], returned: list[int], needed: str
) -> None:
    inputs = "images" if slot == "encoder" else "latents"
    shapes = f"{re.escape(f'returns {returned} for {inputs} {given}; ')}.*{re.escape(f'need {needed}')}"
    refused(rf"^The {slot} Custom {shapes}", custom, slot, Custom(answer), latents)


@pytest.mark.parametrize(
    ("slot", "answer", "message"),
    [
        ("encoder", lambda x: (x, x), r"a tuple for images \[2, 1, 6, 6\]; it has to return one tensor"),
        ("encoder", lambda x: x.long(), r"torch.int64 for images \[2, 1, 6, 6\]; .* torch.float32"),
        ("encoder", lambda x: x.half(), r"torch.float16 for images \[2, 1, 6, 6\]"),
        ("encoder", lambda x: x @ x[0, 0, :1], r"fails on images .*, called as forward\(x\): RuntimeError: "),
        ("decoder", lambda z: {}["a"], r"fails .*forward\(z\): KeyError: 'a'. .* return \[2, 1, 6, 6\]\.$"),
    ],
)
def test_custom_modules_that_fail_are_rejected(slot: str, answer: Any, message: str) -> None:
    with user_error(rf"^The {slot} Custom .*{message}") as caught:
        custom(slot, Custom(answer))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("slot", SLOTS)
def test_custom_modules_must_accept_labels_if_conditional(slot: str) -> None:
    rejected = rf", which the {slot} Custom does not accept\. Add an argument y for the labels"
    with user_error(rf"^A conditional model calls forward\([xz], y\){rejected}"):
        custom(slot, Custom(lambda h: h), classes=3)
    with user_error(r"^A model without labels calls forward\([xz]\), .*CustomWithLabels"):
        custom(slot, CustomWithLabels(lambda h: h))


@pytest.mark.parametrize("slot", SLOTS)
def test_missing_custom_module_is_reported(slot: str) -> None:
    where = rf"vaekit.load\(run, {slot}=module\), or .* to vaekit.train\(.*{slot}=module\).$"
    fact = f"The {slot} of this model is a custom module, 'Custom', which is not stored with the run"
    refused(rf"^{fact}\. Pass it to {where}", custom, slot, None, name="Custom")
    refused(rf"^The {slot} 'own' .* vaekit.train\(images, {slot}=module\).$", custom, slot, None)
