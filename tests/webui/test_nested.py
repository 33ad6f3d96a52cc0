"""A generation inside another, as ADetailer and its like make one: FAM is the outer one's alone."""

import re

import pytest

from tests.webui.server import encoded
from tests.webui.test_whole_host import PROBE


@pytest.fixture(scope="module")
def nesting(start):
    server = start(extension=PROBE)
    server.generate(None)  # the first picture of a WebUI that is still loading is not what this is about
    yield server
    server.stop()


def made(server, fam, kind, **fields):
    """Return the outer generation, and what the probe says of the inner one: infotext, sizes, hashes."""
    answer = server.generate(fam, others={"Nested": {"args": [kind]}}, **fields)
    assert answer.status == 200, answer.error
    return answer, server.ask("/probe/nested")[1]


def fam_of(answer):
    return [re.findall(r"FAM [^,]*", text) for text in answer.infotexts]


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
@pytest.mark.parametrize("kind", ["adetailer", "scripts", "copy", "copy and scripts"])
def test_a_picture_inside_a_picture_is_as_without_fam(nesting, native_picture, kind, tab):
    fields = {"tab": tab}
    if tab == "img2img":
        fields |= {"init_images": [encoded(native_picture)], "width": 128, "height": 128}
    alone = nesting.generate({}, **fields)
    without, plain = made(nesting, None, kind, **fields)
    assert not without.fam and len(plain[2]) == 1
    outer, inner = made(nesting, {}, kind, **fields)
    assert (outer.pixels, fam_of(outer)) == (alone.pixels, fam_of(alone)) and fam_of(outer)[0]
    assert "FAM" not in inner[0] and inner[1:] == plain[1:]
    assert not any(said in nesting.log() for said in ("Error running", "was replaced while FAM"))
