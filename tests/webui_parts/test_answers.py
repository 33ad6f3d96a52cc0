"""What is left of a generation that an error of FAM has ended."""

from types import FunctionType, SimpleNamespace

import pytest
from PIL import Image

from fam_ext.errors import ConfigError
from tests.webui_parts.conftest import Img2Img, Txt2Img

PLOT = SimpleNamespace(title=lambda: "X/Y/Z plot")


def refused(webui, p, images=()):
    """Return what the WebUI has of p in the end, where FAM refuses it before it samples."""
    processed = SimpleNamespace(images=list(images), infotexts=["of the pass"], info="of the pass")
    with webui("answers").stopping(p):
        raise ConfigError("cutoff is 2; choose 0 to 1")
    assert webui.shared.state.interrupted and p.comments == ["cutoff is 2; choose 0 to 1"]
    assert p.do_not_save_grid  # the WebUI divides by the number of pictures
    webui("script").FamHiresScript().postprocess(p, processed)
    assert not p.do_not_save_grid
    return processed


def test_a_picture_of_the_gallery_that_could_not_be_enlarged_stays_there_with_its_own_infotext(webui):
    images = webui("answers").images
    for own, kept in (("its own", "its own"), (None, "of the pass")):
        images.read_info_from_image = lambda image, own=own: (own, {})
        picture = Image.new("RGB", (8, 8))
        processed = refused(webui, Txt2Img(txt2img_upscale=True, firstpass_image=picture))
        assert processed.images == [picture] and processed.infotexts == [processed.info] == [kept]


def test_pictures_that_were_made_before_the_error_are_left_alone(webui):
    processed = refused(webui, Txt2Img(txt2img_upscale=True, firstpass_image=Image.new("RGB", (8, 8))), ["made"])
    assert processed.images == ["made"] and processed.infotexts == ["of the pass"]
    assert refused(webui, Txt2Img()).images == []


def test_a_plot_goes_on_with_its_next_cell(webui):
    p = Txt2Img(txt2img_upscale=True, script_args=[1], scripts=SimpleNamespace(selectable_scripts=[PLOT]))
    assert refused(webui, p).images == [] and not webui.shared.state.interrupted


def test_img2img_s_batch_goes_on_with_its_next_file_and_says_why(webui):
    def process_batch():
        return refused(webui, Img2Img())

    answers, said = webui("answers"), []
    answers.gr.Warning = said.append
    places = {**globals(), "__name__": "modules.img2img"}
    batch = FunctionType(process_batch.__code__, places, closure=process_batch.__closure__)
    assert refused(webui, Img2Img()).infotexts == ["of the pass"] and webui.shared.state.interrupted and not said
    webui.shared.state.interrupted = False
    processed = batch()
    assert (processed.images, processed.infotexts) == ([], []) and not webui.shared.state.interrupted
    assert said == ["FAM Hires: cutoff is 2; choose 0 to 1"]


def test_a_script_that_counts_on_pictures_gets_an_error_and_not_none(webui):
    upscale = SimpleNamespace(title=lambda: "SD upscale")
    p = Img2Img(script_args=[1], scripts=SimpleNamespace(selectable_scripts=[upscale]))
    with webui("answers").stopping(p):
        raise ConfigError("cutoff is 2; choose 0 to 1")
    with pytest.raises(ConfigError, match="cutoff is 2"):
        p.init()
    assert not webui.shared.state.interrupted and not p.comments
