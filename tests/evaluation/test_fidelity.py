"""Comparison of sets of images, reconstruction metrics and copies."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from command import rings
from vaekit.config.overrides import resolve
from vaekit.evaluation import fidelity
from vaekit.evaluation.features import load_extractor
from vaekit.evaluation.fidelity import compare
from vaekit.evaluation.memorization import Nearest, memorization, nearest
from vaekit.evaluation.reconstruction import reconstruction
from vaekit.models.builder import build


def test_neighbourhood_metrics_by_hand() -> None:
    real, other = torch.randn(40, 3).double(), (0.7 * torch.randn(40, 3) + 0.5).double()

    def radius(points: Tensor, index: int, k: int) -> float:
        distances = sorted(float((points[index] - one).norm()) for j, one in enumerate(points) if j != index)
        return distances[k - 1]

    def inside(point: Tensor, points: Tensor, k: int) -> list[bool]:
        return [float((point - center).norm()) <= radius(points, i, k) for i, center in enumerate(points)]

    result = compare(real, other)
    assert result.precision.value == pytest.approx(np.mean([any(inside(o, real, 3)) for o in other]))
    assert result.recall.value == pytest.approx(np.mean([any(inside(r, other, 3)) for r in real]))
    assert result.density.value == pytest.approx(np.mean([sum(inside(o, real, 5)) for o in other]) / 5)
    covered = np.array([inside(o, real, 5) for o in other]).any(0)
    assert result.coverage.value == pytest.approx(covered.mean())


def test_kid_by_hand() -> None:
    real, other = torch.randn(20, 4).double(), torch.randn(20, 4).double() + 1
    both = torch.cat([real, other])
    kernel = [[(float(a @ b) / 4 + 1) ** 3 for b in both] for a in both]
    k = np.array(kernel)
    among = [k[:20, :20], k[20:, 20:]]
    expected = sum((m.sum() - np.trace(m)) / (20 * 19) for m in among) - 2 * k[:20, 20:].mean()
    assert compare(real, other).kid.value == pytest.approx(expected)


@pytest.mark.parametrize("count", [2000, 30])  # more images than features, and fewer
def test_fid_is_the_distance_between_gaussians(count: int) -> None:
    """By the matrix root of S^1/2 T S^1/2, and for few features of many images in closed form."""
    features = 4 if count == 2000 else 50
    real = torch.randn(count, features).double()
    other = 2 * torch.randn(count, features).double() + 1
    s, t = (torch.cov(x.T) for x in (real, other))
    values, vectors = torch.linalg.eigh(s)
    root = vectors @ values.clamp(min=0).sqrt().diag() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ t @ root).clamp(min=0).sqrt().sum()
    expected = (real.mean(0) - other.mean(0)).square().sum() + s.trace() + t.trace() - 2 * overlap
    result = compare(real, other).fid.value
    assert result == pytest.approx(expected.item(), rel=1e-5)
    if count == 2000:
        assert result == pytest.approx(4 * (1 + (2 - 1) ** 2), rel=0.1)


def test_intervals_cover_equal_distributions() -> None:
    """KID 0 and the coverage 1 - 2^-5 that Naeem et al. expect, in nearly 95 of 100 intervals."""
    torch.manual_seed(1)
    kid = coverage = 0
    for _ in range(60):
        result = compare(torch.randn(120, 6), torch.randn(120, 6))
        kid += result.kid.low <= 0 <= result.kid.high
        coverage += result.coverage.low <= 1 - 0.5**5 <= result.coverage.high
    assert kid >= 52 and coverage >= 50


def test_worse_sets_score_worse_and_intervals_are_finite() -> None:
    real, like, narrow, off = torch.randn(4, 300, 8)
    narrow, off = 0.3 * narrow, off + 3
    good, collapsed, wrong = (compare(real, other) for other in (like, narrow, off))
    assert good.coverage.value > 0.9 and good.recall.value > 0.7
    assert collapsed.precision.value > 0.95 and collapsed.recall.value < 0.2
    assert wrong.precision.value < 0.1 and wrong.coverage.value < 0.1
    assert good.kid.high < wrong.kid.low and good.fid.high < wrong.fid.low
    result = compare(torch.randn(50, 3), torch.randn(50, 3))
    assert all(math.isfinite(end) for _, interval in result for _, end in interval)
    assert all(interval.low <= interval.value <= interval.high for _, interval in result)
    assert fidelity.JACKKNIFE_GROUPS == 10  # STUDENT_QUANTILE belongs to it


def test_difference_has_its_own_interval() -> None:
    real, like, near = torch.randn(3, 400, 6)
    near = near + 0.25
    ours, theirs, result = compare(real, near), compare(real, like), compare(real, near, like)
    for name, interval in result:
        assert interval.value == pytest.approx(getattr(ours, name).value - getattr(theirs, name).value)
    assert result.kid.low > 0  # told apart with the same real images
    same = compare(real, like, like)
    assert all(interval.low == interval.high == 0 for _, interval in same)


@pytest.mark.parametrize("count", [50, 1000])
def test_shares_of_zero_and_one_have_binomial_intervals(count: int) -> None:
    """Of 0 in N the 97.5 % bound is 1 - 0.025^(1/N), about 3.7 / N (Clopper & Pearson)."""
    real = torch.randn(count, 4)
    far = compare(real, real + 1000)
    for name in ("precision", "recall", "coverage"):
        assert getattr(far, name).value == getattr(far, name).low == 0
        assert getattr(far, name).high == pytest.approx(3.69 / count, rel=0.05)
    assert far.density.low == 0 < far.fid.low
    same = compare(real, real + 1e-6)
    for name in ("precision", "recall", "coverage"):
        assert getattr(same, name).value == getattr(same, name).high == 1
        assert 1 - getattr(same, name).low == pytest.approx(3.69 / count, rel=0.05)
    neither = compare(real, real + 1000, real - 1000).recall
    assert neither.high == -neither.low == pytest.approx(3.69 / count, rel=0.05)


def test_nearest_images_across_batches() -> None:
    training = torch.rand(500, 30)
    copy = training[321] + 1e-3
    plain = torch.full((30,), 0.5)  # near to all, a copy of none
    result = nearest(torch.stack([copy, plain, training[7]]), training.split(64))
    assert result.row.tolist()[0] == 321 and result.row.tolist()[2] == 7
    assert result.distance[0].item() == pytest.approx(0.255, rel=0.2)  # of a difference of squares in 32 bits
    by_hand = 255 * (training - plain).square().mean(1).sqrt()
    assert result.distance[1].item() == pytest.approx(by_hand.min().item(), rel=1e-4)
    assert result.relative[0] < 0.01 and result.relative[1] > 0.7


def test_copies_and_duplicates_are_counted() -> None:
    training, held_out, new = torch.rand(400, 20), torch.rand(200, 20), torch.rand(100, 20)
    honest = memorization(nearest(new, [training]), nearest(held_out, [training]))
    assert honest.copied < 0.06 and honest.duplicates == 0
    new[:40] = training[:40]
    held_out[:20] = training[100:120] + 0.001
    result = memorization(nearest(new, [training]), nearest(held_out, [training]))
    assert result.copied == pytest.approx(0.4, abs=0.06) or result.copied >= 0.38
    assert result.duplicates == pytest.approx(0.1)
    fewer = memorization(nearest(new, [training]), nearest(held_out[20:70], [training]))
    assert fewer.copied_expected == pytest.approx(1 / 51) and fewer.copied >= 0.38
    assert memorization(nearest(new, [training]), nearest(held_out[:19], [training])).copied is None


@pytest.mark.parametrize("count", [100, 150, 400])
def test_copies_without_memorization_are_as_expected(count: int) -> None:
    def drawn(size: int) -> Nearest:
        relative = torch.rand(size)
        return Nearest(torch.zeros(size, dtype=torch.long), torch.ones(size), relative)

    result = [memorization(drawn(count), drawn(count)) for _ in range(600)]
    expected = max(1, round(0.01 * (count + 1))) / (count + 1)
    assert np.mean([one.copied for one in result]) == pytest.approx(expected, rel=0.2)
    assert np.mean([one.copied > one.copied_by_chance for one in result]) < 0.045


def test_ssim_averages_whole_windows() -> None:
    """Wang et al.'s mean SSIM: margins count only as far as whole windows reach into them."""
    model = build(resolve({"latents": 4, "encoder": "mlp", "decoder": "mlp"}), (1, 16, 16))[0].eval()
    images = torch.from_numpy(rings(6, 16)).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        reconstructed = model.reconstruct(images)
    offsets = torch.arange(11) - 5.0
    window = torch.exp(-offsets.square() / (2 * 1.5**2))
    window = (window[:, None] * window / window.sum() ** 2).double()

    def by_hand(a: Tensor, b: Tensor) -> float:
        values = []
        for i in range(6):
            for j in range(6):
                one, two = a[i : i + 11, j : j + 11].double(), b[i : i + 11, j : j + 11].double()
                m, n = (window * one).sum(), (window * two).sum()
                s, t = (window * one.square()).sum() - m**2, (window * two.square()).sum() - n**2
                c = (window * one * two).sum() - m * n
                values.append((2 * m * n + 1e-4) * (2 * c + 9e-4) / ((m**2 + n**2 + 1e-4) * (s + t + 9e-4)))
        return float(torch.stack(values).mean())

    expected = np.mean([by_hand(a[0], b[0]) for a, b in zip(reconstructed, images, strict=True)])
    assert reconstruction(model, [(images, None)]).ssim == pytest.approx(expected, abs=1e-4)


def test_reconstruction_metrics_by_formula() -> None:
    config = resolve({"latents": 4, "encoder": "mlp", "decoder": "mlp"})
    model = build(config, (1, 16, 16))[0].eval()
    images = torch.from_numpy(rings(30, 16)).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        reconstructed = model.reconstruct(images)
    result = reconstruction(model, [(part, None) for part in images.split(7)])
    mse = (reconstructed - images).square().mean((1, 2, 3))
    assert result.mse == pytest.approx(mse.mean().item(), rel=1e-5)
    assert result.psnr == pytest.approx((-10 * mse.log10()).mean().item(), rel=1e-5)
    variance = images.var(0, correction=0).mean().item()
    assert result.explained_variance == pytest.approx(1 - mse.mean().item() / variance, rel=1e-4)
    assert result.mse_standard_error == pytest.approx(mse.std().item() / math.sqrt(30), rel=1e-4)
    assert -1 < (result.ssim or 2) < 1
    model = build(resolve({"latents": 4, "encoder": "mlp", "decoder": "mlp"}), (1, 8, 8))[0].eval()
    assert reconstruction(model, [(torch.rand(4, 1, 8, 8), None)]).ssim is None


def test_extractor_takes_gray_colour_and_transparency() -> None:
    network, note = load_extractor()
    if network is None:
        assert "pip install" in note
        pytest.skip("no extractor installed")
    gray = rings(4, 20)
    seen = network(gray)
    torch.testing.assert_close(seen, network(np.repeat(gray, 3, 3)))
    clear = np.concatenate([np.repeat(gray, 3, 3), np.zeros_like(gray)], 3)
    torch.testing.assert_close(network(clear), network(np.full((4, 20, 20, 3), 255, np.uint8)))
