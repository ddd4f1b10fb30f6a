"""Groups of similar latents."""

import torch

from vaekit.latents.groups import IMAGES_PER_GROUP, fit_groups


def modes(counts: list[int]) -> torch.Tensor:
    """Points around 0, 10, 20, ..., as many of each as `counts` says."""
    centres = torch.repeat_interleave(10 * torch.arange(len(counts)), torch.tensor(counts))
    return centres[:, None] + torch.randn(sum(counts), 3, generator=torch.Generator().manual_seed(0))


def test_groups_are_the_modes_of_the_latents() -> None:
    loc = modes([100, 100, 100])
    groups = fit_groups(loc, None, most=3)
    members = groups.of(loc, None)
    assert [len(members[first : first + 100].unique()) for first in (0, 100, 200)] == [1, 1, 1]
    assert len(members.unique()) == 3
    assert groups.classes.tolist() == [0, 0, 0]
    assert torch.equal(members, fit_groups(loc, None, most=3).of(loc, None))


def test_every_class_has_groups_by_its_share_of_the_images() -> None:
    loc = torch.cat([modes([100, 100, 100]), modes([100])])
    y = torch.tensor([1] * 300 + [4] * 100)
    groups = fit_groups(loc, y, most=4)
    assert groups.classes.tolist() == [1, 1, 1, 4]
    members = groups.of(loc, y)
    assert torch.equal(groups.classes[members], y)
    assert members[:100].unique().tolist() != members[300:].unique().tolist()  # alike, but of two classes
    assert groups.of(loc[:1], torch.tensor([7])).tolist() == [0]


def test_a_few_images_are_one_group() -> None:
    count = 2 * IMAGES_PER_GROUP
    loc = modes([count // 2, count // 2])
    assert len(fit_groups(loc, None).classes) == 2
    assert len(fit_groups(loc[:-1], None).classes) == 1
