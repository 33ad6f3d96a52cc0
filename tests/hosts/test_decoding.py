"""What a VAE returns is a picture, or an error that says what to do; and in which precision it runs."""

import types

import pytest
import torch
from PIL import Image

from fam_ext import hires
from fam_ext.errors import NonFiniteLatentError
from fam_ext.hosts.diffusers.host import DiffusersHost
from fam_ext.jobs.run import run_job
from fam_ext.options.job import Job
from fam_ext.standalone import DiffusersRenderer
from tests.hosts import toys

CPU = torch.device("cpu")
FAULTS = {
    "nan": lambda pixels: pixels * torch.nan,
    "one nan": lambda pixels: pixels.clone().index_fill_(-1, torch.tensor([3]), torch.nan),
    "infinite": lambda pixels: pixels.clone().index_fill_(-1, torch.tensor([3]), torch.inf),
    "black": lambda pixels: torch.full_like(pixels, -1.0),
    "white": lambda pixels: torch.full_like(pixels, 1.0),
}


def broken(monkeypatch, fault):
    """Return a host whose VAE decodes to `fault`."""
    pipe = toys.sd_pipeline()
    decode = pipe.vae.decode
    monkeypatch.setattr(
        pipe.vae, "decode", lambda latent: types.SimpleNamespace(sample=FAULTS[fault](decode(latent).sample))
    )
    return DiffusersHost(pipe, name="toy", device=CPU, dtype=torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_decode_that_is_no_picture_says_what_to_do(monkeypatch, fault):
    host = broken(monkeypatch, fault)
    with pytest.raises(NonFiniteLatentError, match=r"--dtype.*--no-half-vae"):
        hires.generate_native(host, size=(64, 64), sampling=hires.Sampling(steps=2))
    with pytest.raises(NonFiniteLatentError, match="--dtype"):
        image = Image.effect_noise((64, 64), 60).convert("RGB")
        hires.upscale(host, image, size=(64, 64), sampling=hires.Sampling(steps=2))


@pytest.mark.slow
def test_in_a_folder_it_fails_alone_and_is_not_saved(monkeypatch, tmp_path):
    (tmp_path / "in").mkdir()
    for name, width in (("bad", 64), ("good", 72)):
        Image.effect_noise((width, 64), 60).convert("RGB").save(tmp_path / "in" / f"{name}.png")
    monkeypatch.setitem(FAULTS, "square", lambda pixels: pixels * (1 if pixels.shape[-1] > 128 else torch.nan))
    renderer = DiffusersRenderer()
    renderer._host = broken(monkeypatch, "square")
    settings = {"steps": 2}
    options = Job.of(inputs=(str(tmp_path / "in"),), output=str(tmp_path / "out"), scale=2, settings=settings)
    summary = run_job(options, lambda: renderer)
    assert (summary.done, summary.failed) == (1, 1)
    assert [file.name for file in (tmp_path / "out").rglob("*.png")] == ["good.png"]


@pytest.mark.parametrize("colour", [0.0, 0.5, 1.0])
def test_a_picture_that_is_one_colour_is_a_picture(colour):
    latent = torch.full((1, 4, 16, 16), 1.5) + 0.1 * torch.randn(
        1, 4, 16, 16, generator=torch.Generator().manual_seed(1)
    )
    latent[..., 0] = latent[..., -1, :] = 3.0  # the encoder's padding
    hires.check_decoded(torch.full((1, 3, 128, 128), colour), latent)
    latent[..., 6:10, 6:10] = -1.0  # a thing in the middle, of which nothing is left
    with pytest.raises(NonFiniteLatentError, match="one flat colour"):
        hires.check_decoded(torch.full((1, 3, 128, 128), colour), latent)
    with pytest.raises(NonFiniteLatentError, match="not finite"):
        hires.check_decoded(torch.full((1, 3, 128, 128), torch.nan), latent)


@pytest.mark.slow
def test_a_white_picture_of_a_real_autoencoder_is_not_refused():
    from fam_ext.standalone import load_pipeline

    host = load_pipeline(device="cpu")
    latent = host.encode(torch.ones(1, 3, 128, 128))
    assert latent.std() > 0.01
    hires.check_decoded(torch.ones(1, 3, 128, 128), latent)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "force", "expected"),
    [
        (torch.float16, True, torch.float32),
        (torch.float16, False, torch.float16),
        (torch.bfloat16, True, torch.bfloat16),
        (torch.float32, True, torch.float32),
    ],
)
def test_a_half_precision_autoencoder_that_overflows_is_held_in_float32(dtype, force, expected):
    pipe = toys.sdxl_pipeline().to(dtype)
    pipe.vae.register_to_config(force_upcast=force)
    host = DiffusersHost(pipe, name="toy", device=CPU, dtype=dtype)
    assert {value.dtype for value in pipe.vae.parameters()} == {expected}
    assert pipe.unet.dtype == dtype
    pixels = host.decode(host.encode(torch.rand(1, 3, 64, 64)))
    assert pixels.isfinite().all()


@pytest.mark.slow
def test_tiles_are_smaller_where_the_autoencoder_is_wider_than_the_model():
    wide, narrow = [], []
    for seen, force in ((wide, True), (narrow, False)):
        pipe = toys.sdxl_pipeline().to(torch.float16)
        pipe.vae.register_to_config(force_upcast=force)
        host = DiffusersHost(pipe, name="toy", device=CPU, dtype=torch.float16)
        for side in (1024, 1280, 2048):
            seen.append(8 * host._latent_tile((side, side), None))
    assert narrow == [0, 0, 1024]
    assert wide == [0, 704, 704]
