"""What is computed does not depend on the autocast that a host has open: A1111 samples under one on CUDA."""

import pytest
import torch

from fam_ext.core.attention import modulated_attention
from fam_ext.core.frequency import high_pass_mask, mirrored, modulate, modulate_spatial
from fam_ext.core.without_fft import modulate_by_matmuls
from fam_ext.hosts.base import LateChecks
from fam_ext.hosts.ldm.rows import rows_of

GRIDS = [((8, 8), (16, 16)), ((8, 8), (12, 12)), ((8, 8), (24, 24)), ((8, 12), (13, 20)), ((9, 9), (17, 17))]


def autocast(dtype):
    return torch.autocast("cpu", dtype=dtype)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("strength", [0.0, 0.7, 1.0])
@pytest.mark.parametrize(("native_size", "size"), GRIDS)
def test_attention_is_the_same_under_autocast(native_size, size, strength, dtype, half):
    torch.manual_seed(0)
    counts = size[0] * size[1], native_size[0] * native_size[1]
    q, k, v = (torch.randn(2, 3, counts[0], 8).to(dtype) for _ in range(3))
    native = [torch.randn(2, 3, counts[1], 8).to(dtype) for _ in range(2)]
    more = {"size": size, "native_size": native_size, "strength": strength}
    plain = modulated_attention(q, k, v, *native, **more)
    with autocast(half):
        assert torch.equal(modulated_attention(q, k, v, *native, **more), plain)
        assert (torch.eye(2) @ torch.eye(2)).dtype == half  # and it is open again


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", [modulate, modulate_spatial, modulate_by_matmuls])
def test_frequencies_are_the_same_under_autocast(form, half):
    torch.manual_seed(0)
    latent, reference = torch.randn(1, 4, 12, 20), torch.randn(1, 4, 12, 20)
    for make in (lambda x: x, mirrored):
        state, low = make(latent), make(reference)
        mask = high_pass_mask(state.shape[-2:], (6, 10), 0.3, edge=0.5)
        plain = form(state, low, mask)
        with autocast(half):
            assert torch.equal(form(state, low, mask), plain)


def test_rows_are_told_apart_under_autocast():
    torch.manual_seed(0)
    first = torch.randn(1, 4, 8, 8)
    pictures = torch.cat([first, first + 0.01 * torch.randn(1, 4, 8, 8)])
    with autocast(torch.float16):
        checks = LateChecks()
        assert rows_of(pictures.repeat(2, 1, 1, 1) / 3, pictures, order=None, checks=checks).tolist() == [0, 1, 0, 1]
        checks.send()
