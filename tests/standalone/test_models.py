"""Models as the WebUI takes them: what the prompt becomes, and which networks are refused by name."""

import json

import pytest
import torch
from diffusers import (
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
)
from PIL import Image

from fam_ext import standalone
from fam_ext.core.config import FamConfig
from fam_ext.errors import UnsupportedModelError
from fam_ext.hosts.base import Prompt
from fam_ext.hosts.diffusers_samplers import SCHEDULERS
from fam_ext.jobs.contract import Progress
from fam_ext.jobs.plan import PlanOptions
from fam_ext.jobs.run import run_job
from fam_ext.metadata.infotext import parse
from fam_ext.metadata.pictures import read_header
from fam_ext.options.presets import BUILTIN
from fam_ext.options.request import HiresRequest
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


def lcm_pipeline():
    """A guidance-distilled model in diffusers' own pipeline, and the same network as a host."""
    pipe = toys.sd_pipeline()
    pipe.unet = toys.sd_unet(time_cond_proj_dim=16).eval()
    torch.nn.init.normal_(pipe.unet.time_embedding.cond_proj.weight, generator=torch.Generator().manual_seed(3))
    parts = {name: part for name, part in pipe.components.items() if name not in ("scheduler", "image_encoder")}
    scheduler = LCMScheduler(**toys.training(), clip_sample=False)
    return LatentConsistencyModelPipeline(**parts, scheduler=scheduler, requires_safety_checker=False), as_host(pipe)


@pytest.mark.parametrize("cfg_scale", [1.0, 8.0])
def test_a_distilled_network_is_told_the_guidance_as_in_diffusers_own_pipeline(cfg_scale):
    own, host = lcm_pipeline()
    own.set_progress_bar_config(disable=True)
    sampler = host.sampler("LCM", "SGM Uniform", 4, seeds=[5])
    begin = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    with host.model([Prompt("a cat", "x")], size=(64, 64), cfg_scale=cfg_scale) as model:
        ours = sampler.run(begin, model)
    theirs = own(
        "a cat",
        height=64,
        width=64,
        num_inference_steps=4,
        guidance_scale=cfg_scale,
        latents=begin,
        generator=torch.Generator().manual_seed(5 * 1_000_003 + 7),
        output_type="latent",
    ).images
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_a_distilled_network_is_told_its_guidance_under_fam_and_in_low_memory():
    _, host = lcm_pipeline()
    told = []
    host.pipe.unet.time_embedding.register_forward_pre_hook(
        lambda module, args, kwargs: told.append((args[0].shape[0], args[1] if len(args) > 1 else kwargs["condition"])),
        with_kwargs=True,
    )
    for low_memory in (False, True):
        request = HiresRequest(
            size=(96, 96), steps=2, sampler="LCM", cfg_scale=3.0, config=FamConfig(), low_memory=low_memory
        )
        standalone.render_on(host, Image.new("RGB", (64, 64)), request, Progress())
    assert len(told) == 8  # the native pass and the target's, a step
    assert all(rows == 1 and torch.equal(condition, told[0][1]) for rows, condition in told)


def test_a_folder_of_the_lcm_pipeline_loads(tmp_path):
    lcm_pipeline()[0].save_pretrained(tmp_path)
    host = standalone.load_pipeline(tmp_path, device="cpu")
    assert host.pipe.unet.config.time_cond_proj_dim == 16


@pytest.mark.parametrize("kind", ["StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLPipeline"])
def test_a_refiner_folder_is_refused_by_name(tmp_path, kind):
    parts = {"_class_name": kind, "text_encoder": [None, None], "text_encoder_2": ["transformers", "CLIPTextModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(parts))
    with pytest.raises(UnsupportedModelError, match="is the SDXL refiner; choose a model of"):
        standalone.load_pipeline(tmp_path, device="cpu")


@pytest.mark.parametrize("sampler", sorted(SCHEDULERS))
def test_the_few_step_presets_steps_begin_at_the_noisiest_timestep(sd_host, sampler):
    settings = dict(BUILTIN["few-step"].settings) | {"sampler": sampler, "steps": 4}
    run = sd_host.sampler(settings["sampler"], settings["schedule"], settings["steps"], seeds=[1])
    assert run.levels[0].timestep == 999


def test_what_the_network_was_not_shown_is_a_note_of_the_picture(tmp_path, sd_host):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    prompt = "<lora:detail:1>" + "<hypernet:x>" * 9 + "cat " * 5000
    settings = {"prompt": prompt, "negative_prompt": "dog " * 5000, "steps": 2, "sampler": "DPM++ 2M", "clip_skip": 2}
    options = PlanOptions((str(tmp_path / "a.png"),), str(tmp_path / "out"), scale=1.5, settings=settings)

    class OnHost:
        name = "host"

        def render(self, image, request, progress):
            return standalone.render_on(sd_host, image, request, progress)

    seen = []
    assert run_job(options, OnHost, on_event=seen.append).done == 1
    params = parse(read_header(tmp_path / "out" / "a.png").infotext).params
    assert params["FAM notes"].startswith("left out of the prompt: lora detail, hypernet x, hypernet x")
    assert "and 5 more; give the files with --lora" in params["FAM notes"]
    assert params["FAM notes"].count("is cut to 20 chunks of 75 tokens") == 2
    assert next(event.notes for event in seen if event.kind == "finished")
    assert params["FAM schedule"] == "Karras" and params["FAM clip skip"] == "2"


@pytest.mark.parametrize(("asked", "written"), [("Automatic", "Karras"), ("Uniform", None), ("Karras", None)])
def test_a_schedule_of_the_pictures_own_text_that_did_not_run_is_corrected(tmp_path, sd_host, asked, written):
    from PIL.PngImagePlugin import PngInfo

    info, text = PngInfo(), f"a cat\nSteps: 2, Sampler: DPM++ 2M, Schedule type: {asked}, CFG scale: 7, Seed: 1"
    info.add_text("parameters", text)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png", pnginfo=info)

    class OnHost:
        name = "host"

        def render(self, image, request, progress):
            return standalone.render_on(sd_host, image, request, progress)

    options = PlanOptions((str(tmp_path / "a.png"),), str(tmp_path / "out"), scale=1.5)
    assert run_job(options, OnHost).done == 1
    ran = parse(read_header(tmp_path / "out" / "a.png").infotext).params
    assert ran.get("FAM schedule") == written


def test_clip_skip_is_written_where_it_acts(sd_host, sdxl_host):
    request = HiresRequest(size=(96, 96), steps=2, clip_skip=2)
    picture = Image.new("RGB", (64, 64))
    assert standalone.render_on(sd_host, picture, request, Progress()).ran["FAM clip skip"] == "2"
    assert "FAM clip skip" not in standalone.render_on(sdxl_host, picture, request, Progress()).ran
