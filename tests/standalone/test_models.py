"""Models as the WebUI takes them: what the prompt becomes, and which networks are refused by name."""

import hashlib
import json
import tracemalloc

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file, save_file

from fam_ext import standalone
from fam_ext.core.config import FamConfig
from fam_ext.errors import UnsupportedModelError
from fam_ext.hosts.base import Prompt
from fam_ext.jobs.contract import Progress
from fam_ext.jobs.ran_text import fields
from fam_ext.jobs.run import run_job
from fam_ext.metadata.infotext import parse, request_value
from fam_ext.metadata.pictures import read_header
from fam_ext.options.job import Job
from fam_ext.options.presets import BUILTIN
from fam_ext.options.request import HiresRequest
from fam_ext.samplers.names import OFFERED
from fam_ext.weights import settings_hash, weights_hash
from tests.hosts import toys
from tests.samplers.references import SCHEDULERS

from .conftest import as_host

pytestmark = pytest.mark.slow  # diffusers' networks take longer to import than a unit file may run


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


@pytest.mark.parametrize("scheduler", ["EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_schedulers_of_other_families_are_refused_by_name(tmp_path, scheduler):
    import diffusers

    pipe = toys.sd_pipeline()
    pipe.scheduler = getattr(diffusers, scheduler)()
    pipe.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=scheduler):
        standalone.load_pipeline(tmp_path, device="cpu")


def test_a_folder_with_fp16_files_alone_loads(tmp_path):
    toys.sdxl_pipeline().save_pretrained(tmp_path, variant="fp16")
    assert standalone.load_pipeline(tmp_path, device="cpu").is_sdxl


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_one_part_with_fp16_files_alone_loads(tmp_path, part):
    toys.sd_pipeline().save_pretrained(tmp_path)
    for file in (tmp_path / part).glob("*.safetensors"):
        file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
    assert standalone.load_pipeline(tmp_path, device="cpu").name == tmp_path.name


def test_a_part_that_is_pickled_is_one_sentence(tmp_path):
    toys.sd_pipeline().save_pretrained(tmp_path)
    weights = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(UnsupportedModelError, match=r"lacks a part.*pickled weights are not loaded"):
        standalone.load_pipeline(tmp_path, device="cpu")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_a_part_that_lacks_a_weight_is_refused_and_never_drawn_at_random(tmp_path, part):
    toys.sdxl_pipeline().save_pretrained(tmp_path)
    (file,) = (tmp_path / part).glob("*.safetensors")
    weights = load_file(file)
    name = sorted(name for name in weights if name.endswith("weight"))[-1]
    kept = weights.pop(name)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UnsupportedModelError, match=rf"{part} of .* lacks 1 of its weights \(the first is .*weight\)"):
        standalone.load_pipeline(tmp_path, device="cpu")
    save_file({**weights, name: torch.zeros(3, *kept.shape)}, file, metadata={"format": "pt"})
    with pytest.raises(UnsupportedModelError, match="holds one that does not fit"):
        standalone.load_pipeline(tmp_path, device="cpu")
    file.write_bytes(b"\x00" * 40)
    with pytest.raises(UnsupportedModelError, match="holds one that does not fit"):
        standalone.load_pipeline(tmp_path, device="cpu")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[1, 2]", "null"])
def test_an_index_that_is_none_is_one_sentence(tmp_path, text):
    (tmp_path / "model_index.json").write_text(text)
    with pytest.raises(UnsupportedModelError, match=r"give the folder of one|choose a model of"):
        standalone.load_pipeline(tmp_path, device="cpu")


@pytest.mark.parametrize(
    "entry", [None, [], [None, None], ["diffusers", "NoSuchNetwork"], ["nowhere", "CLIPTextModel"]]
)
def test_a_part_of_an_unknown_kind_is_one_sentence(tmp_path, entry):
    toys.sd_pipeline().save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "text_encoder": entry}))
    with pytest.raises(UnsupportedModelError, match="lacks a part"):
        standalone.load_pipeline(tmp_path, device="cpu")


def test_no_weights_have_no_hash(tmp_path):
    for place in (tmp_path, tmp_path / "gone"):
        with pytest.raises(UnsupportedModelError, match=r"has no \.safetensors weights"):
            standalone.weights_tag(place)


@pytest.mark.parametrize(
    ("asked", "ran"),
    [(("DDIM", "Karras"), ("DDIM", "Uniform")), (("dpm++ 2m", "Automatic"), ("DPM++ 2M", "Karras"))],
)
def test_the_schedule_written_is_the_one_that_ran(sd_host, asked, ran):
    request = HiresRequest(size=(96, 96), steps=2, sampler=asked[0], schedule=asked[1])
    wrote = fields(standalone.render_on(sd_host, Image.new("RGB", (64, 64)), request, Progress()).ran)
    assert (wrote["FAM sampler"], wrote["FAM schedule"]) == ran


def lcm_pipeline():
    """A guidance-distilled model in diffusers' own pipeline, and the same network as a host."""
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler

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


@pytest.mark.parametrize("sampler", sorted(OFFERED))
def test_the_few_step_presets_steps_begin_at_the_noisiest_timestep(sd_host, sampler):
    settings = dict(BUILTIN["few-step"].settings) | {"sampler": sampler, "steps": 4}
    run = sd_host.sampler(settings["sampler"], settings["schedule"], settings["steps"], seeds=[1])
    assert run.levels[0].timestep == 999


def test_what_the_network_was_not_shown_is_a_note_of_the_picture(tmp_path, sd_host):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    prompt = "<lora:detail:1>" + "<hypernet:x>" * 9 + "cat " * 5000
    settings = {"prompt": prompt, "negative_prompt": "dog " * 5000, "steps": 2, "sampler": "DPM++ 2M", "clip_skip": 2}
    options = Job.of((str(tmp_path / "a.png"),), str(tmp_path / "out"), scale=1.5, settings=settings)

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
    assert params["Schedule type"] == "Karras" and "FAM schedule" not in params and params["FAM clip skip"] == "2"


def test_loras_that_drew_are_said_and_not_called_left_out(sd_host, monkeypatch):
    monkeypatch.setattr(sd_host, "loras", [("detail", 0.5), ("a, b", 1.0)])
    prompt = "a <lora:detail:1> <lyco:detail:1> <hypernet:detail:1>"
    request = HiresRequest(size=(96, 96), prompt=prompt, steps=1, method="resize")
    ran = standalone.render_on(sd_host, Image.new("RGB", (64, 64)), request, Progress()).ran
    assert ran.loras == "detail:0.5, a, b:1"
    assert ran.notes == ("left out of the prompt: hypernet detail; give the files with --lora",)


def test_a_prompts_schedules_are_drawn_as_their_ends_and_said(sd_host):
    request = HiresRequest(size=(96, 96), prompt="a [cat:dog:0.5]", negative_prompt="bad AND [x|y]", seed=1, steps=2)
    assert standalone.request_sampling(request).prompt == "a dog"
    assert standalone.request_sampling(request).negative_prompt == "bad, x, y"
    assert standalone.what_was_left_out(request, sd_host) == (
        "in the prompt, [from:to:when] is drawn as its second text",
        "in the negative prompt, [a|b] is drawn as all of its texts and AND is drawn as a comma",
    )


def test_textual_inversions_are_drawn_as_words_and_said(sd_host):
    request = HiresRequest(
        size=(96, 96),
        prompt="a (embedding:style.pt:1.2)",
        negative_prompt="embedding:Easy, embedding:style.pt, disembedding:x",
        steps=2,
    )
    assert standalone.what_was_left_out(request, sd_host) == (
        "no textual inversion is loaded: style.pt, Easy drawn as plain words",
    )
    many = HiresRequest(size=(96, 96), prompt=" ".join(f"embedding:e{number}" for number in range(7)), steps=2)
    assert "e3, e4 and 2 more drawn" in standalone.what_was_left_out(many, sd_host)[0]


@pytest.mark.parametrize(("asked", "written"), [("Automatic", "Karras"), ("Uniform", None), ("Karras", None)])
def test_a_schedule_of_the_pictures_own_text_that_did_not_run_is_corrected(tmp_path, sd_host, asked, written):
    info, text = PngInfo(), f"a cat\nSteps: 2, Sampler: DPM++ 2M, Schedule type: {asked}, CFG scale: 7, Seed: 1"
    info.add_text("parameters", text)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png", pnginfo=info)

    class OnHost:
        name = "host"

        def render(self, image, request, progress):
            return standalone.render_on(sd_host, image, request, progress)

    options = Job.of((str(tmp_path / "a.png"),), str(tmp_path / "out"), scale=1.5)
    assert run_job(options, OnHost).done == 1
    ran = parse(read_header(tmp_path / "out" / "a.png").infotext).params
    assert ran.get("FAM schedule") == written


def test_clip_skip_acts_on_clip_l_alone_where_the_webuis_setting_says_so(sdxl_host):
    told = as_host(toys.sdxl_pipeline(), clip_l_skip=True)
    width = told.pipe.text_encoder.config.hidden_size
    plain, skipped = (contexts(told, Prompt("a cat", "x", skip))[0] for skip in (None, 3))
    assert not torch.allclose(plain[..., :width], skipped[..., :width])
    assert torch.equal(plain[..., width:], skipped[..., width:])
    usual = contexts(sdxl_host, Prompt("a cat", "x"))[0]
    # as in the WebUI: the setting alone takes the last layer, 2 is SDXL's own
    assert torch.equal(contexts(told, Prompt("a cat", "x", 2))[0], usual) and not torch.equal(plain, usual)


def test_clip_skip_is_written_where_it_acts(sd_host, sdxl_host):
    request = HiresRequest(size=(96, 96), steps=2, clip_skip=2)
    picture = Image.new("RGB", (64, 64))
    assert fields(standalone.render_on(sd_host, picture, request, Progress()).ran)["FAM clip skip"] == "2"
    assert "FAM clip skip" not in fields(standalone.render_on(sdxl_host, picture, request, Progress()).ran)


class OnHost:
    """Renders on a loaded host, as a job's renderer."""

    name = "host"

    def __init__(self, host):
        self.host = host

    def render(self, image, request, progress):
        return standalone.render_on(self.host, image, request, progress)


def job(tmp_path, host, text=None, **settings):
    """Return the parameters of the file that a job makes from a picture with `text` as its own infotext."""
    info = PngInfo()
    if text is not None:
        info.add_text("parameters", text)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png", pnginfo=info)
    settings = {"steps": 2, "sampler": "DPM++ 2M"} | settings
    options = Job.of((str(tmp_path / "a.png"),), str(tmp_path / "out"), scale=1.5, settings=settings)
    assert run_job(options, lambda: OnHost(host)).done == 1
    return parse(read_header(tmp_path / "out" / "a.png").infotext).params


def test_a_clip_skip_that_did_not_act_is_not_written(tmp_path, sdxl_host):
    assert "FAM clip skip" not in job(tmp_path, sdxl_host, clip_skip=2)


def test_what_ran_names_the_weights_and_the_vae(tmp_path):
    toys.sd_pipeline().save_pretrained(tmp_path / "model")
    host = standalone.load_pipeline(tmp_path / "model", device="cpu")
    ran = job(tmp_path, host, "a cat\nSteps: 2, Sampler: DPM++ 2M, CFG scale: 7, Seed: 1, VAE: other.safetensors")
    assert ran["FAM model hash"] == standalone.weights_tag(tmp_path / "model") + ran["FAM model hash"][8:]
    assert len(ran["FAM model hash"]) == 10
    assert ran["FAM VAE"] == "None"  # the WebUI's word for the checkpoint's own
    (tmp_path / "again").mkdir()
    assert "FAM VAE" not in job(tmp_path / "again", host)  # no word of a VAE, and no other ran
    request = HiresRequest(size=(96, 96), steps=2, vae="other.safetensors")
    notes = standalone.render_on(host, Image.new("RGB", (64, 64)), request, Progress()).ran.notes
    assert notes == ("VAE other.safetensors was not loaded; the model's own was used",)


def test_a_checkpoints_hash_is_the_webuis(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(3 << 20) + b"x")
    assert weights_hash(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_weights_are_hashed_in_pieces_and_once(tmp_path, monkeypatch):
    file, opened = tmp_path / "model.safetensors", []
    file.write_bytes(bytes(5 << 20))
    own = type(file).open
    monkeypatch.setattr(type(file), "open", lambda path, mode: opened.append(mode) or own(path, mode))
    tracemalloc.start()
    first = weights_hash(file)
    assert tracemalloc.get_traced_memory()[1] < 3 << 20
    tracemalloc.stop()
    assert weights_hash(file) == first and opened == ["rb"]
    file.write_bytes(bytes(4 << 20))
    assert weights_hash(file) != first and opened == ["rb", "wb", "rb"]


def test_the_settings_of_a_folder_are_hashed_by_name_and_content(tmp_path):
    def written(name, text):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        return settings_hash(tmp_path)

    seen = [settings_hash(tmp_path)]
    for name in ("model_index.json", "scheduler/scheduler_config.json", "merges.txt", "tokenizer/moved.txt"):
        seen += [written(name, "{}"), written(name, "{ }")]
    (tmp_path / "tokenizer" / "moved.txt").rename(tmp_path / "tokenizer" / "again.txt")
    seen.append(settings_hash(tmp_path))
    assert len(set(seen)) == len(seen)
    assert written("README.md", "reads well") == written("unet/model.safetensors", "weights") == seen[-1]
    assert settings_hash(tmp_path / "README.md") == seen[0]


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("sampler", sorted(set(SCHEDULERS) - {"LCM"}))
def test_a_spacing_is_diffusers_own_and_is_written(sd_host, sampler, spacing):
    import diffusers

    ours = sd_host.sampler(sampler, "Uniform", 4, seeds=[1], spacing=spacing)
    kind = getattr(diffusers, SCHEDULERS[sampler][0])
    theirs = kind.from_config({**dict(sd_host.pipe.scheduler.config), "timestep_spacing": spacing})
    theirs.set_timesteps(4)
    assert ours.levels[0].timestep == float(theirs.timesteps[0])
    assert (ours.levels[0].timestep == 999) == (spacing != "leading")


def test_a_spacing_is_written_where_it_ran(tmp_path, sd_host):
    text = "a cat\nSteps: 2, Sampler: Euler, Schedule type: Uniform, CFG scale: 7, Seed: 1"
    (tmp_path / "again").mkdir()
    assert "FAM timestep spacing" not in job(tmp_path, sd_host, text)
    assert job(tmp_path / "again", sd_host, text, timestep_spacing="trailing")["FAM timestep spacing"] == "trailing"
    request = HiresRequest(size=(96, 96), steps=2, sampler="LCM", timestep_spacing="trailing")
    picture = Image.new("RGB", (64, 64))
    assert "FAM timestep spacing" not in fields(standalone.render_on(sd_host, picture, request, Progress()).ran)


def test_the_few_step_preset_asks_for_trailing_timesteps():
    settings = BUILTIN["few-step"].settings
    assert settings["timestep_spacing"] == "trailing"


def test_the_steps_written_are_the_schedules_so_that_they_can_be_read_again(sd_host):
    request = HiresRequest(size=(96, 96), steps=4, sampler="Euler", config=FamConfig(start=0.5))
    ran = fields(standalone.render_on(sd_host, Image.new("RGB", (64, 64)), request, Progress()).ran)
    assert (request_value(ran, "steps"), ran["FAM start"]) == (4, "0.5")
