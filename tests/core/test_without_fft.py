"""Frequency Modulation on a device without FFT: the same by matmuls, and anything else that goes wrong is said."""

from unittest.mock import Mock

import pytest
import torch

from fam_ext.core import without_fft
from fam_ext.core.config import FamConfig
from fam_ext.core.frequency import modulate
from fam_ext.core.guide import HiresGuide, seeded_noise
from fam_ext.core.schedule import NoiseLevel
from fam_ext.core.without_fft import modulate_by_matmuls

ABSENT = (
    NotImplementedError("The operator 'aten::_fft_r2c' is not currently implemented for the MPS device"),
    RuntimeError("fft is not currently implemented for this device"),
    RuntimeError("Unsupported dtype Half"),
    RuntimeError("PyTorch was compiled without MKL"),
)


@pytest.mark.parametrize("size", [(8, 8), (7, 12), (1, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_matmuls_agree_for_any_symmetric_mask(size, dtype):
    latent, reference = (seeded_noise((4, *size), [seed, 9]).to(dtype) for seed in (1, 2))
    mask = torch.rand(size, generator=torch.Generator().manual_seed(3))
    for axis in (0, 1):
        mask = mask + mask.flip(axis).roll(1, axis)  # of k and -k the same
    made, expected = modulate_by_matmuls(latent, reference, mask / 4), modulate(latent, reference, mask / 4)
    assert made.dtype == dtype and torch.allclose(made, expected, atol=1e-5 if dtype != torch.bfloat16 else 0.02)


@pytest.fixture
def modulated():
    """Modulates a latent n times in one pass, from a pass of its own each time it is called."""
    stream = torch.Generator().manual_seed(1)
    native, target, noise = (torch.randn(1, 4, side, side, generator=stream) for side in (8, 16, 16))
    latent = torch.randn(1, 4, 16, 16, generator=stream)

    def run(times):
        guide = HiresGuide(FamConfig(), native=native, target=target, noise=noise, steps=6)
        return [guide.modulate(latent, NoiseLevel(500.0, 1.0, 2.0)) for _ in range(times)]

    return run


@pytest.mark.parametrize("error", ABSENT, ids=str)
def test_a_device_without_fft_takes_the_matmuls_and_says_so_once(modulated, monkeypatch, caplog, error):
    (expected,) = modulated(1)
    monkeypatch.setattr(torch.fft, "rfft2", Mock(side_effect=error))
    with caplog.at_level("INFO"):
        results = modulated(2)
    assert all(torch.allclose(result, expected, atol=1e-5) for result in results)
    assert caplog.text.count("no FFT") == torch.fft.rfft2.call_count == 1


def test_a_device_whose_fft_is_wrong_is_not_asked(modulated, monkeypatch):
    (expected,) = modulated(1)
    assert {"mps", "privateuseone"} <= set(without_fft.WITHOUT_FFT)
    monkeypatch.setattr(without_fft, "WITHOUT_FFT", ("cpu",))
    monkeypatch.setattr(torch.fft, "rfft2", Mock())
    assert torch.allclose(modulated(1)[0], expected, atol=1e-5) and not torch.fft.rfft2.called


def test_no_other_fault_is_answered(modulated, monkeypatch):
    monkeypatch.setattr(torch.fft, "rfft2", Mock(side_effect=RuntimeError("CUDA out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        modulated(1)
