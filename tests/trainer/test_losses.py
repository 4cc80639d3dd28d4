"""Loss terms against other people's implementations and against their own derivatives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from skimage.metrics import structural_similarity

from edgesod.errors import UsageError
from trainer.losses import TERMS, DeepSupervision, LossParts, bce, bce_sum, iou, ssim
from trainer.losses.terms import ssim_map


def _maps(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator, dtype=dtype)
    return logits, torch.rand(shape, generator=generator, dtype=dtype).round()


def test_cross_entropy_is_the_mean_of_its_definition() -> None:
    logits, truth = _maps(2, 1, 8, 9)
    p = 1 / (1 + np.exp(-logits.numpy()))
    expected = -(truth.numpy() * np.log(p) + (1 - truth.numpy()) * np.log(1 - p)).mean()
    assert float(bce(logits, truth)) == pytest.approx(expected, rel=1e-9)


def test_summed_cross_entropy_is_averaged_over_pictures_alone() -> None:
    logits, truth = _maps(2, 1, 8, 9)
    assert float(bce_sum(logits, truth)) == pytest.approx(8 * 9 * float(bce(logits, truth)), rel=1e-12)


@pytest.mark.parametrize(("term", "least", "most"), [(bce, 0.9, 1.0), (iou, 0.0, 1e-6), (ssim, 0.0, 1e-6)])
def test_only_cross_entropy_lifts_a_black_map(term: Callable[..., torch.Tensor], least: float, most: float) -> None:
    truth = _maps(1, 1, 16, 16)[1]
    logits = torch.full_like(truth, -20.0, requires_grad=True)
    term(logits, truth).backward()
    assert logits.grad is not None
    lift = -logits.grad[truth == 1].mean() * truth.numel()  # cross-entropy's own is 1
    assert least <= lift <= most


def test_iou_is_averaged_per_picture() -> None:
    logits, truth = _maps(3, 1, 8, 9)
    expected = []
    for p, g in zip(torch.sigmoid(logits).numpy(), truth.numpy(), strict=True):
        inside = (p * g).sum()
        expected.append(1 - inside / (p.sum() + g.sum() - inside))
    assert float(iou(logits, truth)) == pytest.approx(np.mean(expected), rel=1e-6)


@pytest.mark.parametrize("level", [-200.0, -20.0, 0.0])
def test_iou_of_an_empty_truth_is_finite_with_its_gradient(level: float) -> None:
    logits = torch.full((2, 1, 8, 8), level, requires_grad=True)
    loss = iou(logits, torch.zeros(2, 1, 8, 8))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert level > -200 or float(loss.detach()) == 0


def test_ssim_map_agrees_with_scikit_image_away_from_the_border() -> None:
    a, b = (torch.rand(1, 1, 40, 33, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in (0, 1))
    _, expected = structural_similarity(
        a[0, 0].numpy(), b[0, 0].numpy(), gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, full=True
    )
    ours = ssim_map(a, b)[0, 0].numpy()
    np.testing.assert_allclose(ours[5:-5, 5:-5], expected[5:-5, 5:-5], atol=1e-12)


def test_ssim_pads_with_zeros() -> None:
    a, b = (torch.rand(1, 1, 20, 17, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in (2, 3))
    x = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(x, x) / x.sum() ** 2

    def blur(image: np.ndarray) -> np.ndarray:
        return correlate(image, window, mode="constant")

    p, q = a[0, 0].numpy(), b[0, 0].numpy()
    mean_p, mean_q = blur(p), blur(q)
    var_p, var_q, covariance = blur(p * p) - mean_p**2, blur(q * q) - mean_q**2, blur(p * q) - mean_p * mean_q
    expected = (2 * mean_p * mean_q + 1e-4) * (2 * covariance + 9e-4)
    expected /= (mean_p**2 + mean_q**2 + 1e-4) * (var_p + var_q + 9e-4)
    np.testing.assert_allclose(ssim_map(a, b)[0, 0].numpy(), expected, atol=1e-12)


def test_ssim_of_a_map_with_itself_is_nothing_to_lose() -> None:
    truth = torch.zeros(1, 1, 24, 24)
    truth[..., 6:16, 6:16] = 1
    assert float(ssim(200 * (truth - 0.5), truth)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", sorted(TERMS))
def test_derivatives(name: str) -> None:
    logits, truth = _maps(2, 1, 6, 7)
    assert torch.autograd.gradcheck(lambda x: TERMS[name](x, truth), logits.requires_grad_())


def test_total_is_the_weighted_sum_of_its_parts() -> None:
    truth = _maps(2, 1, 12, 12)[1]
    outputs = [_maps(2, 1, 12, 12, seed=k)[0] for k in range(3)]
    loss = DeepSupervision({"bce": 1.0, "ssim": 0.5, "iou": 2.0}, [1.0, 0.25, 0.0])(outputs, truth)
    expected = sum(
        weight * (bce(x, truth) + 0.5 * ssim(x, truth) + 2 * iou(x, truth))
        for x, weight in zip(outputs, (1.0, 0.25, 0.0), strict=True)
    )
    assert float(loss.total) == pytest.approx(float(expected), rel=1e-12)
    assert set(loss.parts) == {f"d{k}/{name}" for k in range(3) for name in ("bce", "ssim", "iou")}
    assert float(loss.parts["d1/iou"]) == pytest.approx(float(iou(outputs[1], truth)))


def test_every_output_weighs_one_by_default() -> None:
    logits, truth = _maps(1, 1, 8, 8)
    assert float(DeepSupervision({"bce": 1.0})([logits] * 7, truth).total) == pytest.approx(7 * float(bce(logits, truth)))


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
)
def test_precision_is_widened_and_never_narrowed(given: torch.dtype, computed: torch.dtype) -> None:
    logits, truth = _maps(1, 1, 8, 8, dtype=torch.float32)
    x = logits.to(given).requires_grad_()
    loss = DeepSupervision({"bce": 1.0, "ssim": 1.0, "iou": 1.0})([x], truth)
    assert loss.total.dtype == computed
    loss.total.backward()
    assert x.grad is not None
    assert x.grad.dtype == given


def test_parts_bear_the_names_of_the_outputs_and_average() -> None:
    truth = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    loss_of = DeepSupervision({"bce": 1.0}, names=("fine", "coarse"))
    losses = [loss_of([_maps(1, 1, 4, 4, seed=seed)[0] for seed in pair], truth) for pair in ((0, 1), (2, 3))]
    mean = LossParts.mean(losses)
    assert set(mean.parts) == {"fine/bce", "coarse/bce"}
    assert float(mean.total) == pytest.approx(sum(float(loss.total) for loss in losses) / 2)
    assert float(mean.parts["coarse/bce"]) == pytest.approx(sum(float(loss.parts["coarse/bce"]) for loss in losses) / 2)


def test_derivative_of_the_whole() -> None:
    logits, truth = _maps(1, 1, 5, 6)
    loss_of = DeepSupervision({"bce": 1.0, "ssim": 1.0, "iou": 1.0}, [1.0, 0.5])
    assert torch.autograd.gradcheck(lambda x: loss_of([x, 2 * x], truth).total, logits.requires_grad_())


@pytest.mark.parametrize("terms", [{"bec": 1.0}, {}])
def test_terms_nobody_knows_are_refused(terms: dict[str, float]) -> None:
    with pytest.raises(UsageError) as caught:
        DeepSupervision(terms)
    assert "bce" in caught.value.hint


def test_weights_for_another_number_of_outputs_are_refused() -> None:
    logits, truth = _maps(1, 1, 8, 8)
    with pytest.raises(UsageError, match="2 output weights for a network of 3 outputs"):
        DeepSupervision({"bce": 1.0}, [1.0, 1.0])([logits] * 3, truth)
