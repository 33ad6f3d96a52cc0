"""The WebUI's modes for little memory: modules move while they rest, and FAM must find them where they are."""

import pytest


@pytest.fixture(scope="module", params=["--lowvram", "--medvram"])
def thrifty(request, start):
    server = start(request.param)
    yield server
    server.stop()


@pytest.mark.parametrize("checkpoint", ["tiny-sd15.safetensors", "tiny-sdxl.safetensors"])
def test_fam_runs_as_without_the_mode(thrifty, server, checkpoint):
    settings = {"override_settings": {"sd_model_checkpoint": checkpoint}}
    made, usual = (each.generate({"start": 1.0}, **settings) for each in (thrifty, server))
    assert made.fam["FAM version"]
    assert made.pixels == usual.pixels
    assert thrifty.last_pass() == server.last_pass()
    assert thrifty.last_pass()[1] and thrifty.last_pass()[2]
