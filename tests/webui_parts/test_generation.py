"""What a generation says of its pictures, and what it enlarges."""

from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from PIL import Image

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import GuideReport, NativeRecord
from fam_ext.core.schedule import NoiseLevel
from fam_ext.jobs.contract import Progress
from fam_ext.options.table import VERSION_KEY
from fam_ext.recipe import Source, to_images
from tests.webui_parts.conftest import Img2Img, Txt2Img

WHOLE = GuideReport(4, {"site": 4})


def said_of(session, part):
    """Return what the infotext says of every picture of three iterations, and of their grid."""
    p, dials = (
        session.p,
        {
            "version": part._dial(session, VERSION_KEY),
            "if ran": part._said_if_ran(session, lambda: "yes"),
            "method": part._said_after_a_pass(session, "yes"),
        },
    )

    def text(**named):
        # the WebUI names an iteration where it writes from the seeds of all
        words = {"p": p, "iteration": 0, "all_seeds": p.all_seeds, "use_main_prompt": False, "index": 0, **named}
        return {name for name, value in dials.items() if value(**words) is not None}

    of_pictures, by_iteration = [], [text(iteration=number) for number in range(3)]
    for p.iteration in range(3):
        p.seeds = p.all_seeds[p.iteration : p.iteration + 1]
        of_pictures.append(text(all_seeds=p.seeds))
    assert not text(p=Txt2Img(seeds=p.seeds))  # a copy's
    return of_pictures, by_iteration, text(all_seeds=p.seeds, use_main_prompt=True)


def test_each_picture_s_infotext_says_what_ran_on_it(webui):
    part = webui("generation")
    session = webui("session").open_session(Txt2Img(all_seeds=[5, 6, 7]), FamConfig(), MagicMock())
    session.reports = {1: WHOLE, 2: GuideReport()}
    every = {"version", "if ran", "method"}
    assert said_of(session, part) == ([set(), every, {"method"}], [set(), every, {"method"}], set())
    session.reports = {0: WHOLE}
    assert said_of(session, part) == ([every, set(), set()], [every, set(), set()], every)


def whole(height, width):
    """Return a native run whose every value is its own place: rows in channel 0, columns in channel 1."""
    rows, columns = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    latent = torch.stack([rows, columns])[None]
    record = NativeRecord()
    record.add(latent, NoiseLevel(1.0, 500.0, 1.0))
    places = torch.stack([rows, columns, rows * 0]).repeat_interleave(8, -2).repeat_interleave(8, -1)
    return Source(to_images(places[None] / 255), latent, record)


@pytest.mark.parametrize(
    ("enlarged", "truncated", "kept"),
    [
        ((1024, 1024), (64, 0), ((16, 48), (0, 64))),
        ((1024, 1024), (0, 33), ((0, 64), (8, 56))),
        ((1536, 1536), (0, 62), ((0, 64), (10, 54))),
        ((2048, 2048), (255, 0), ((32, 33), (0, 64))),
        ((1024, 1024), (0, 0), ((0, 64), (0, 64))),
    ],
)
def test_of_a_native_picture_that_the_webui_crops_fam_takes_what_is_left(webui, enlarged, truncated, kept):
    (height, width), (truncate_y, truncate_x) = enlarged, truncated
    p = Txt2Img(hr_upscale_to_y=height, hr_upscale_to_x=width, truncate_y=truncate_y, truncate_x=truncate_x)
    source = webui("generation")._under_target(p, whole(64, 64))
    (top, bottom), (left, right) = kept
    ((_, state),) = source.record.steps()
    for latent in (source.latent, state):
        assert latent.shape[-2:] == (bottom - top, right - left)
        assert latent[0, :, 0, 0].tolist() == [top, left] and latent[0, :, -1, -1].tolist() == [bottom - 1, right - 1]
    (picture,) = source.images
    assert picture.size == (8 * (right - left), 8 * (bottom - top))
    assert picture.getpixel((0, 0)) == (top, left, 0)
    assert picture.getpixel((picture.width - 1, picture.height - 1)) == (bottom - 1, right - 1, 0)


def test_the_hires_pass_enlarges_the_part_that_the_webui_keeps(webui):
    part = webui("generation")
    p = Txt2Img(hr_upscale_to_y=1024, hr_upscale_to_x=1024, truncate_y=64, truncate_x=0)
    session = webui("session").open_session(p, FamConfig(), MagicMock())
    session.record = whole(64, 64).record
    taken = []
    part._hires_pass(session)(lambda samples, decoded: taken.append((samples, session.source)))(
        whole(64, 64).latent, None
    )
    ((samples, source),) = taken
    assert samples.shape[-2:] == (64, 64) and source.latent.shape[-2:] == (32, 64)
    assert source.record.steps()[0][1].shape[-2:] == (32, 64)


def test_img2img_s_upscaler_is_not_run_to_round_the_native_picture(webui, monkeypatch):
    part, asked = webui("generation"), []
    picture = Image.new("RGB", (500, 700))
    monkeypatch.setattr(part.images, "flatten", lambda image, colour: image)
    monkeypatch.setattr(
        part.images, "resize_image", lambda *given, **named: asked.append((given[2:], named)) or picture
    )
    monkeypatch.setattr(webui.shared.opts, "img2img_background_color", "#ffffff", raising=False)
    p = Img2Img(image_mask=None, height=1400, width=1000, resize_mode=0, init_images=[picture])
    session = webui("session").open_session(p, FamConfig(), MagicMock())
    part._take_native_pictures(session)
    assert asked == [((496, 704), {"upscaler_name": "None"})] and session.source.images == [picture]


@pytest.mark.parametrize("save", [False, True])
def test_a_finished_picture_s_pass_makes_no_grid_of_one(webui, monkeypatch, save):
    part, p = webui("renderer"), Txt2Img()
    monkeypatch.setattr(part, "_processing", lambda *given, **named: p)
    for name in ("own_random_state", "settings_kept", "closing", "_answerable"):
        monkeypatch.setattr(part, name, lambda *given: nullcontext())
    monkeypatch.setattr(part, "process_images", lambda p: SimpleNamespace(images=["made"]))
    part.hires_from_picture(None, MagicMock(), Progress(), upscaler="Lanczos", save=save)
    assert (p.do_not_save_samples, p.do_not_save_grid) == (not save, True)
