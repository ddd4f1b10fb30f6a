"""Augmentation on known images; through the loader it is tested in `test_loader.py`."""

import torch

from vaekit.data.augment import color_jitter, shift, uniform


def test_shift_by_more_than_the_image_width() -> None:
    x = torch.arange(3.0).view(1, 1, 1, 3)
    zero = torch.zeros(1, dtype=torch.long)
    assert shift(x, zero, torch.tensor([1])).flatten().tolist() == [1, 0, 1]
    assert shift(x, zero, torch.tensor([6])).flatten().tolist() == [2, 1, 0]
    assert shift(x, torch.tensor([7]), zero).flatten().tolist() == [0, 1, 2]


def test_color_jitter() -> None:
    x = torch.rand(4, 4, 3, 3) * 0.4 + 0.2
    assert torch.allclose(color_jitter(x, torch.ones(4, 3)), x)
    bright = color_jitter(x, torch.tensor([[1.2, 1, 1]] * 4))
    assert torch.allclose(bright[:, :3], x[:, :3] * 1.2) and torch.equal(bright[:, 3], x[:, 3])
    flat = color_jitter(x, torch.tensor([[1.0, 0, 1]] * 4))[:, :3]
    assert torch.allclose(flat, flat.mean((2, 3), keepdim=True).expand_as(flat), atol=1e-6)
    gray = color_jitter(x, torch.tensor([[1.0, 1, 0]] * 4))[:, :3]
    assert torch.allclose(gray, gray[:, :1].expand_as(gray), atol=1e-6)
    assert torch.allclose(color_jitter(x[:, :1], torch.tensor([[1.0, 1, 0]] * 4)), x[:, :1])


def test_uniform_is_uniform_and_uncorrelated() -> None:
    numbers = uniform(20_000, 7, 0, torch.device("cpu"))
    assert numbers.min() >= 0 and numbers.max() < 1
    assert (numbers.mean(0) - 0.5).abs().max() < 0.01 and (numbers.var(0) - 1 / 12).abs().max() < 0.003
    assert torch.corrcoef(numbers.T).fill_diagonal_(0).abs().max() < 0.03
    assert torch.equal(numbers[100:], uniform(19_900, 7, 100, torch.device("cpu")))
    assert not torch.equal(numbers, uniform(20_000, 8, 0, torch.device("cpu")))
