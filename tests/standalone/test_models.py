"""Models as the WebUI takes them: what the prompt becomes, and which networks are refused by name."""

import pytest
import torch
from diffusers import EDMEulerScheduler, FlowMatchEulerDiscreteScheduler
from PIL import Image

from fam_ext import standalone
from fam_ext.errors import UnsupportedModelError
from fam_ext.hosts.base import Prompt
from fam_ext.jobs.request import HiresRequest, Progress
from tests.hosts import toys

from .conftest import as_host


def contexts(host, prompt):
    with torch.inference_mode():
        return host._contexts([prompt], use_uncond=True)


def test_an_empty_negative_prompt_is_zeros_for_sdxl_where_the_model_says_so(sdxl_host):
    states, pooled = contexts(sdxl_host, Prompt("a cat", ""))
    assert not states[0].any() and not pooled[0].any() and states[1].any() and pooled[1].any()
    states, pooled = contexts(sdxl_host, Prompt("", "blurry"))
    assert states.any(dim=(1, 2)).all() and pooled.any(dim=1).all()
    told = toys.sdxl_pipeline()
    told.register_to_config(force_zeros_for_empty_prompt=False)
    assert contexts(as_host(told), Prompt("a cat", ""))[0][0].any()


def test_clip_skip_acts_where_the_webuis_acts(sd_host, sdxl_host):
    plain, skipped = (contexts(sd_host, Prompt("a cat", "x", skip))[0] for skip in (None, 2))
    assert not torch.allclose(plain, skipped)
    open_clip = as_host(toys.sd_pipeline())
    open_clip.pipe.text_encoder.config.hidden_act = "gelu"
    for host in (sdxl_host, open_clip):
        plain, skipped = (contexts(host, Prompt("a cat", "x", skip))[0] for skip in (None, 2))
        assert torch.equal(plain, skipped)


@pytest.mark.parametrize(("channels", "named"), [(9, "inpainting"), (8, "pix2pix")])
def test_networks_with_more_inputs_are_refused_by_name(tmp_path, channels, named):
    pipe = toys.sd_pipeline()
    pipe.unet = toys.sd_unet(in_channels=channels)
    pipe.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=rf"{named} model \({channels} channels\)"):
        standalone.load_pipeline(tmp_path, device="cpu")


@pytest.mark.parametrize("scheduler", [EDMEulerScheduler, FlowMatchEulerDiscreteScheduler])
def test_schedulers_of_other_families_are_refused_by_name(tmp_path, scheduler):
    pipe = toys.sd_pipeline()
    pipe.scheduler = scheduler()
    pipe.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=scheduler.__name__):
        standalone.load_pipeline(tmp_path, device="cpu")


def test_a_folder_with_fp16_files_alone_loads(tmp_path):
    toys.sdxl_pipeline().save_pretrained(tmp_path, variant="fp16")
    assert standalone.load_pipeline(tmp_path, device="cpu").is_sdxl


@pytest.mark.parametrize(
    ("asked", "ran"),
    [(("DDIM", "Karras"), ("DDIM", "Uniform")), (("dpm++ 2m", "Automatic"), ("DPM++ 2M", "Karras"))],
)
def test_the_schedule_written_is_the_one_that_ran(sd_host, asked, ran):
    request = HiresRequest(size=(96, 96), steps=2, sampler=asked[0], schedule=asked[1])
    wrote = standalone.render_on(sd_host, Image.new("RGB", (64, 64)), request, Progress()).ran
    assert (wrote["FAM sampler"], wrote["FAM schedule"]) == ran
