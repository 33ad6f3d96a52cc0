"""An img2img picture's decoding is looked at where the WebUI decodes, and what other scripts see stays a latent."""

from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from fam_ext.core.config import FamConfig
from fam_ext.errors import NonFiniteLatentError
from tests.webui_parts.conftest import Decoded, Img2Img

GOOD, HOLES = torch.rand(3, 64, 64), torch.full((3, 64, 64), float("nan"))


@pytest.fixture
def decode(webui, monkeypatch):
    """Return a function that gives (what p.sample returns, what the WebUI then decodes), where its VAE gives `made`."""
    part, latent = webui("decoding"), torch.randn(1, 4, 8, 8)

    def run(made, **fields):
        p = Img2Img(**fields)
        p.sample = lambda: latent
        session = webui("session").open_session(p, FamConfig(), MagicMock())
        session.latents = latent

        def given(model, batch, **named):
            return Decoded([made])

        monkeypatch.setattr(webui.processing, "decode_latent_batch", given)
        samples = part.decoding_checked(session)(p.sample)()
        assert webui.processing.decode_latent_batch is not given
        try:
            decoded = webui.processing.decode_latent_batch(None, samples)
        finally:
            assert webui.processing.decode_latent_batch is given
        return p, samples, decoded

    return run


def test_p_sample_returns_the_latent_and_the_picture_is_checked_after_it(webui, decode):
    _, samples, decoded = decode(GOOD)
    assert isinstance(samples, torch.Tensor) and decoded == [GOOD] and not webui.shared.state.interrupted


def test_a_picture_that_is_none_ends_the_generation(webui, decode):
    p, _, decoded = decode(HOLES)
    assert webui.shared.state.interrupted and "not finite" in p.comments[0]
    processed = SimpleNamespace(images=decoded)
    webui("script").FamHiresScript().postprocess_batch_list(p, processed)
    assert processed.images == []


def test_where_the_api_asked_it_is_its_error(decode):
    with pytest.raises(NonFiniteLatentError, match="not finite"):
        decode(HOLES, is_api=True)


def test_a_decoding_that_never_comes_leaves_nothing_of_ours(webui, monkeypatch):
    monkeypatch.setattr(webui.processing, "decode_latent_batch", given := object())
    p = Img2Img()
    session = webui("session").open_session(p, FamConfig(), MagicMock())
    session.latents = torch.zeros(1, 4, 8, 8)
    webui("decoding").decoding_checked(session)(lambda: session.latents)()
    assert webui.processing.decode_latent_batch is not given
    webui("session").close(p)
    assert webui.processing.decode_latent_batch is given
