"""The shared layers' gradients in the layout that training uses."""

from __future__ import annotations

import pytest
import torch

from trainer.kernels import upsample


@pytest.mark.parametrize("channels", [1, 6])
def test_gradient_through_a_concatenation_is_the_same_in_either_layout(channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, skip = torch.randn(2, channels, 5, 7, generator=generator), torch.randn(2, 3, 10, 14, generator=generator)
    weight = torch.randn(2, channels + 3, 10, 14, generator=generator)
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        leaf = x.clone(memory_format=layout).requires_grad_()
        joined = torch.cat((upsample(leaf), skip.clone(memory_format=layout)), 1)
        (joined * weight.clone(memory_format=layout)).sum().backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[1].is_contiguous(memory_format=torch.channels_last)


def test_upsampling_passes_gradcheck() -> None:
    x = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(upsample, x)
