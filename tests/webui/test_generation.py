"""FAM in the real WebUI through its API: what it changes, what it leaves, what it refuses."""

import re
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fam_ext.compare import structure_psnr
from fam_ext.methods.capabilities import ATTENTION, CONVOLUTION, FEATURE_SIZE, NATIVE_PASS, SAMPLER_STATE
from fam_ext.methods.catalog import METHODS
from tests.webui.conftest import PLAIN, img2img
from tests.webui.server import Answer, encoded

SDXL = {"override_settings": {"sd_model_checkpoint": "tiny-sdxl.safetensors"}}
LORA = {"up": (128, 4), "down": (4, 128)}
SD21 = {"override_settings": {"sd_model_checkpoint": "tiny-sd21-v.safetensors"}}
THROUGHOUT = {"am_window": [1.0, 0.0]}
"""AM at every step, where the default preset has it at the first ones: of three steps that is one."""
SD15 = {"override_settings": {"sd_model_checkpoint": "tiny-sd15.safetensors"}}


@pytest.fixture(scope="module")
def check_off(server, plain_pictures):
    """Assert that the WebUI makes the picture that it made before us."""

    def check(name="latent"):
        assert server.generate(**PLAIN[name]).pixels == plain_pictures[name]

    return check


@pytest.mark.parametrize("name", PLAIN)
def test_with_fam_off_every_bit_is_as_without_the_extension(check_off, name):
    check_off(name)


def test_img2img_with_fam_off_is_as_without_the_extension(server, plain_pictures, native_picture):
    pixels, fam = img2img(server, native_picture)
    assert pixels == plain_pictures["img2img"] and not fam


def test_fam_keeps_the_native_picture_s_low_band(server, check_off):
    fields = {"width": 128, "height": 128, "steps": 8, "denoising_strength": 1.0}
    native = server.generate(**fields, enable_hr=False).images[0]
    plain = server.generate(**fields).images[0]
    fam = server.generate({"cutoff": 8, "cutoff_reference": "cycles"}, **fields)
    assert fam.fam["FAM version"] and next(iter(fam.fam)) == "FAM version"

    def low_band_error(picture):
        small = np.asarray(picture.resize((16, 16), Image.Resampling.BOX), float)
        return np.abs(small - np.asarray(native.resize((16, 16), Image.Resampling.BOX), float)).mean()

    assert low_band_error(fam.images[0]) < 0.7 * low_band_error(plain)
    check_off()


@pytest.mark.parametrize(("model", "sites"), [(SD15, 3), (SD21, 3), (SDXL, 30), ({}, 2)])
def test_am_is_called_once_a_site_and_step(server, model, sites):
    # random networks: the picture means nothing, the calls do
    answer = server.generate({"start": 1.0, **THROUGHOUT}, **model)
    assert answer.fam, answer.error
    steps, fm_calls, am_calls, am_sites = server.last_pass()
    assert (steps, am_sites) == (4, sites)
    assert am_calls == steps * am_sites and fm_calls >= 1


def test_one_model_in_both_layouts_makes_one_picture(server):
    # the same weights under ldm's and under sgm's code: FM, AM and the native pass reach both alike. Without a negative
    # prompt the WebUI gives an SDXL model zeros
    fields = {"width": 128, "height": 128, "steps": 8, "negative_prompt": "blurry", "denoising_strength": 1.0}
    pictures, calls = [], []
    for model in ("fluent-tiny.safetensors", "fluent-tiny-xl.safetensors"):
        answer = server.generate({}, override_settings={"sd_model_checkpoint": model}, **fields)
        assert answer.fam, answer.error
        pictures.append(answer.images[0])
        calls.append(server.last_pass())
    assert calls[0] == calls[1]
    assert structure_psnr(*pictures) > 40
    assert structure_psnr(pictures[0], server.generate(**fields).images[0]) < 30  # it is FAM that was compared


def test_fm_and_am_each_change_the_picture(server):
    pictures = {
        name: server.generate(config).pixels[0]
        for name, config in {"both": THROUGHOUT, "fm": {"am": False}, "am": {"fm": False, **THROUGHOUT}}.items()
    }
    assert len(set(pictures.values())) == 3


def test_a_part_that_never_acted_is_written_as_off(server):
    never = [0.02, 0.01]  # no step lies there
    for fam, off, on in (({"am_window": never}, "AM", "FM"), ({"fm_window": never}, "FM", "AM")):
        told = server.generate(fam).fam
        assert told[f"FAM no {off}"] == "True" and f"FAM no {on}" not in told


def test_every_method_of_the_catalog_runs_or_is_refused_by_name(server, check_off):
    made = {}
    for name, entry in METHODS.items():
        answer = server.generate({"method": name})
        if not entry.needs <= {SAMPLER_STATE, NATIVE_PASS, ATTENTION, CONVOLUTION, FEATURE_SIZE}:
            assert answer.status != 200 and f"method {name} needs" in answer.error
            continue
        made[name] = answer.pixels
        assert f"FAM method: {name}" in answer.infotexts[0] or name == "fam"
        assert ("FAM version" in answer.infotexts[0]) == bool(entry.knobs)
    assert len({str(pixels) for pixels in made.values()}) == len(made) >= 4
    unipc = {"sampler_name": "UniPC", "scheduler": "Automatic"}
    assert server.generate({"method": "direct-from-native"}, **unipc).status == 200
    assert "UniPC" in server.generate({"method": "skip-residual"}, **unipc).error
    check_off()


def test_every_method_of_the_webui_runs_under_autocast(server):
    """As on an NVIDIA card, by the setting that opens one on a CPU; 1.5x needs matrices that no half holds exactly."""
    try:
        for name, entry in METHODS.items():
            if entry.needs <= {SAMPLER_STATE, NATIVE_PASS, ATTENTION, CONVOLUTION, FEATURE_SIZE}:
                answer = server.generate({"method": name}, hr_scale=1.5, override_settings={"fp8_storage": "Enable"})
                assert answer.status == 200, (name, answer.error)
                assert answer.images[0].convert("L").getextrema() != (0, 0), name
    finally:
        server.ask("/sdapi/v1/options", {"fp8_storage": "Disable"})


def test_both_off_is_not_labelled(server):
    assert not server.generate({"fm": False, "am": False}).fam


SAMPLERS = [
    "DPM++ 2M",
    "DPM++ SDE",
    "DPM++ 2M SDE",
    "DPM++ 2M SDE Heun",
    "DPM++ 2S a",
    "DPM++ 3M SDE",
    "Euler a",
    "Euler",
    "LMS",
    "Heun",
    "DPM2",
    "DPM2 a",
    "DPM fast",
    "DPM adaptive",
    "Restart",
    "DDIM",
    "DDIM CFG++",
    "PLMS",
    "LCM",
]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_each_of_the_webui_s_samplers(server, sampler):
    fam = {"start": 0.8, **THROUGHOUT}
    answer = server.generate(fam, sampler_name=sampler, scheduler="Automatic", steps=5, hr_scale=1.5)
    assert answer.status == 200, answer.error
    assert answer.fam["FAM start"] == "0.8"
    steps, fm_calls, am_calls, _ = server.last_pass()
    assert fm_calls >= 1 and am_calls >= steps
    assert steps < 5 or sampler == "DPM adaptive"  # which takes as many as it likes: the first of the five is left out


@pytest.mark.parametrize("sampler", ["DDIM", "PLMS", "DDIM CFG++"])
def test_the_ddim_family_ends_under_fm_as_euler_does(server, native_picture, sampler):
    # the host's own loop makes no call at its last timestep: FM would leave what the call before it drew
    fields = {"init_images": [encoded(native_picture)], "width": 128, "height": 128, "steps": 12}
    fields |= {"tab": "img2img", "scheduler": "Automatic"}
    kept = {
        name: structure_psnr(
            server.generate({"preset": "balanced"}, sampler_name=name, **fields).images[0], native_picture
        )
        for name in (sampler, "Euler")
    }
    assert kept[sampler] > kept["Euler"] - 0.7


def test_all_samplers_are_tested_or_refused(server):
    names = {entry["name"] for entry in server.ask("/sdapi/v1/samplers")[1]}
    assert names - set(SAMPLERS) == {"UniPC"}
    answer = server.generate({}, sampler_name="UniPC", scheduler="Automatic")
    assert answer.status == 422 and "UniPC" in answer.error


FEATURES = {
    "AND prompts": {"prompt": "a red apple AND a green tree :0.8"},
    "long prompt": {"prompt": "a red apple, " * 40, "negative_prompt": "bad"},
    "one row at a time": {"override_settings": {"batch_cond_uncond": False}},
    "batch": {"batch_size": 2, "n_iter": 2},
    "cfg 1": {"cfg_scale": 1},
    "hires prompt and sampler": {"hr_prompt": "a blue car", "hr_sampler_name": "Euler", "hr_second_pass_steps": 6},
    "pixel upscaler": {"hr_upscaler": "Lanczos"},
    "latent upscaler": {"hr_upscaler": "Latent (bicubic antialiased)"},
    "not square": {"width": 64, "height": 96, "hr_scale": 2},
    "odd scale": {"hr_scale": 1.63},
    "cropped": {"hr_resize_x": 128, "hr_resize_y": 160},
    "hypertile": {"override_settings": {"hypertile_enable_unet": True}},
    "token merging": {"override_settings": {"token_merging_ratio": 0.5, "token_merging_ratio_hr": 0.5}},
    "upcast attention": {"override_settings": {"upcast_attn": True}},
    "autocast": {"override_settings": {"fp8_storage": "Enable"}, "hr_scale": 1.5},
    "autocast and upcast attention": {"override_settings": {"fp8_storage": "Enable", "upcast_attn": True}},
    "ngms": {"s_min_uncond": 3.0},
    "refiner": {"refiner_checkpoint": "tiny-sd15.safetensors", "refiner_switch_at": 0.6},
    "hires checkpoint": {"hr_checkpoint_name": "tiny-sd15.safetensors", "hr_upscaler": "Lanczos"},
    "attention": {"override_settings": {"cross_attention_optimization": "sdp - scaled dot product"}},
    "tiling": {"tiling": True},
    "zero terminal SNR": {"override_settings": {"sd_noise_schedule": "Zero Terminal SNR"}},
    "v-prediction and DDIM": {"sampler_name": "DDIM", "scheduler": "Automatic", **SD21},
    "subseed": {"subseed": 5, "subseed_strength": 0.3},
}


@pytest.mark.parametrize("name", FEATURES)
def test_it_works_with(server, name):
    fields = FEATURES[name]
    options = server.ask("/sdapi/v1/options")[1]
    answer = server.generate({"start": 0.9}, **fields)
    # the WebUI keeps what an API request overrides where it was never saved before
    server.ask("/sdapi/v1/options", {option: options[option] for option in fields.get("override_settings", {})})
    assert answer.status == 200, answer.error
    assert answer.fam["FAM start"] == "0.9"
    _, fm_calls, am_calls, sites = server.last_pass()
    assert fm_calls >= 1 and am_calls >= sites


def test_lora_and_textual_inversion_reach_both_passes(server):
    generator = torch.Generator().manual_seed(0)
    layer = "diffusion_model_output_blocks_3_1_transformer_blocks_0_attn1_to_q"
    lora = {f"{layer}.lora_{part}.weight": torch.randn(shape, generator=generator) for part, shape in LORA.items()}
    embedding = {"emb_params": torch.randn(2, 128, generator=generator)}
    for place, name, tensors in (("models/Lora", "tiny-lora", lora), ("embeddings", "tinyword", embedding)):
        folder = server.data / place
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / f"{name}.safetensors")
    plain = server.generate(THROUGHOUT, **SD15)
    for prompt in ("a red apple <lora:tiny-lora:1>", "a red apple tinyword"):
        answer = server.generate(THROUGHOUT, prompt=prompt, **SD15)
        assert answer.fam and answer.pixels != plain.pixels
        assert server.last_pass()[2:] == (9, 3)  # 3 of 4 steps: the default begins at 0.7
    assert server.generate(THROUGHOUT, **SD15).pixels == plain.pixels


def test_a_hypernetwork_reaches_both_passes(server):
    name = {"name": "tiny-hypernetwork", "enable_sizes": ["32", "64", "128"], "overwrite_old": True}
    asked = {**name, "layer_structure": [1, 2, 1], "activation_func": "linear", "weight_init": "XavierNormal"}
    assert server.ask("/sdapi/v1/create/hypernetwork", asked)[0] == 200
    # the WebUI refuses to read the form in which a newer torch makes it write its own file
    (path,) = (server.data / "models" / "hypernetworks").glob("tiny-hypernetwork.pt")
    generator = torch.Generator().manual_seed(0)  # the WebUI's own draw may be too small for any pixel

    def drawn(value):
        if isinstance(value, torch.Tensor):
            return torch.randn(value.shape, generator=generator)
        if isinstance(value, dict):
            return {key: drawn(inner) for key, inner in value.items()}
        return tuple(map(drawn, value)) if isinstance(value, tuple) else value

    torch.save(drawn(torch.load(path, weights_only=True)), path, _use_new_zipfile_serialization=False)
    plain = server.generate(THROUGHOUT, **SD15)
    without_am = server.generate({"am": False}, prompt="a red apple <hypernet:tiny-hypernetwork:1>", **SD15)
    answer = server.generate(THROUGHOUT, prompt="a red apple <hypernet:tiny-hypernetwork:1>", **SD15)
    assert server.last_pass()[2:] == (9, 3)  # 3 of 4 steps: the default begins at 0.7
    assert answer.fam and len({*answer.pixels, *plain.pixels, *without_am.pixels}) == 3
    assert server.generate(THROUGHOUT, **SD15).pixels == plain.pixels


def test_nothing_of_all_that_stayed(check_off):
    for name in PLAIN:
        check_off(name)


def test_a_seed_is_a_picture_whatever_the_batch(server):
    both = server.generate({}, batch_size=2)
    assert both.pixels == server.generate({}, batch_size=2).pixels
    for batched, alone in zip(both.images, (server.generate({}), server.generate({}, seed=2)), strict=True):
        difference = np.abs(np.asarray(batched, int) - np.asarray(alone.images[0], int))
        assert difference.max() <= 1  # as without FAM: a CPU multiplies batches of other sizes in another order


def test_img2img_takes_the_input_as_native(server, native_picture):
    answer = server.generate({"start": 0.6}, tab="img2img", init_images=[encoded(native_picture)], width=128, height=96)
    assert answer.images[0].size == (128, 96) and answer.fam["FAM start"] == "0.6"
    small = server.generate({}, tab="img2img", init_images=[encoded(native_picture)])
    assert small.status == 422 and "64 x 64" in small.error


def test_img2img_with_a_mask(server, native_picture):
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    fields = {"init_images": [encoded(native_picture)], "mask": encoded(mask), "width": 128, "height": 128}
    whole = server.generate({}, tab="img2img", inpaint_full_res=False, **fields)
    assert whole.fam, whole.error
    area = server.generate({}, tab="img2img", inpaint_full_res=True, **fields)
    assert area.status == 422 and "Whole picture" in area.error


@pytest.mark.parametrize(
    ("fam", "words"),
    [
        ({"cutoff": 1.4}, ["cutoff", "1.4", "0 to 1"]),
        ({"cutof": 0.4}, ["cutof ", "cutoff"]),
        ({"attention": "much"}, ["attention", "0 to 1"]),
        ({"am_window": [0.2, 0.8]}, ["am_window", "1 >= start >= end >= 0"]),
        ({"am_sites": "middle*"}, ["am_sites", "output_blocks"]),
        ({"preset": "nothing"}, ["nothing", "paper", "balanced"]),
        ({"enabled": "yes"}, ["enabled", "true or false"]),
    ],
)
def test_errors_name_the_field_and_what_is_allowed(server, check_off, fam, words):
    answer = server.generate(fam)
    assert answer.status == 422 and all(word in answer.error for word in words), answer.error
    assert "\n" not in answer.error
    check_off()


def test_fam_without_hires_fix_is_not_silently_plain(server):
    answer = server.generate({}, enable_hr=False)
    assert answer.status == 422 and "Hires. fix" in answer.error


def test_the_infotext_restores_the_picture(server):
    fam = {"cutoff": 0.6, "attention": 0.4, "am_window": [1.0, 0.3], "start": 0.8, "step_invariant": True}
    first = server.generate(fam, hr_upscaler="Lanczos")
    # the WebUI's API cannot read its own "Use same sampler" out of an infotext
    same = {"hr_sampler_name": "DPM++ 2M", "hr_scheduler": "Karras"}
    again = Answer(*server.ask("/sdapi/v1/txt2img", {"infotext": first.infotexts[0], **same}))
    assert again.fam == first.fam
    assert again.pixels == first.pixels
    other = first.infotexts[0].replace("FAM ", "X ")
    assert not Answer(*server.ask("/sdapi/v1/txt2img", {"infotext": other, **same})).fam


def test_interrupt_ends_the_pass_and_leaves_nothing(server, check_off):
    answers = []
    work = threading.Thread(target=lambda: answers.append(server.generate({}, width=128, height=128, steps=60)))
    work.start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        state = server.ask("/sdapi/v1/progress?skip_current_image=true")[1]
        if state["state"]["job_no"] == 1 and state["state"]["sampling_step"] >= 2:
            break
        time.sleep(0.05)
    server.ask("/sdapi/v1/interrupt", {})
    work.join(60)
    assert not work.is_alive() and answers[0].status == 200
    check_off()


def plotted(server, x, y=("Nothing", "", [])):
    """Return the answer of a plot with two axes (label, values as text, values as a list) and its cells."""
    info = server.ask("/sdapi/v1/script-info")[1]
    plot = next(entry for entry in info if entry["name"] == "x/y/z plot" and not entry["is_img2img"])
    labels = plot["args"][0]["choices"]
    defaults = [argument["value"] for argument in plot["args"]]
    defaults[[argument["label"] for argument in plot["args"]].index("Include Sub Images")] = True
    arguments = []
    for label, text, values in (x, y, ("Nothing", "", [])):
        arguments += [labels.index(label), text, values]
    return server.generate(script_name="x/y/z plot", script_args=[*arguments, *defaults[len(arguments) :]])


def test_an_axis_of_cutoffs_has_the_unit_that_it_says(server):
    alone = plotted(server, ("[FAM] Cutoff c", "0.2, 0.4", []))
    assert ["FAM cutoff: 0.2" in alone.infotexts[1], "FAM cutoff: 0.4" in alone.infotexts[2]] == [True, True]
    assert "FAM cutoff reference" not in "".join(alone.infotexts)
    cycles = plotted(server, ("[FAM] Cutoff c", "16 cycles, 24 cycles", []))
    assert all("FAM cutoff reference: cycles" in text for text in cycles.infotexts[1:3])
    assert ["FAM cutoff: 16" in cycles.infotexts[1], "FAM cutoff: 24" in cycles.infotexts[2]] == [True, True]


@pytest.mark.parametrize(
    ("axis", "words"),
    [
        (("[FAM] Cutoff c", "0.5, 900", []), ["cutoff is 900", "512"]),
        (("[FAM] Start (rho)", "0.7, 3", []), ["start is 3"]),
        (("[FAM] Preset", "", ["paper", "none"]), ["'none'", "balanced"]),
        (("[FAM] Cutoff c", "0.5, abc", []), ["cutoff is 'abc'"]),
        (("[FAM] Attention Modulation", "", ["maybe"]), ["am is 'maybe'"]),
        (("[FAM] AM window (rho)", "soon", []), ["am_window is 'soon'"]),
        (("[FAM] AM sites", "no.such.*", []), ["no.such.*", "output_blocks"]),
    ],
)
def test_an_axis_with_a_value_that_cannot_be_is_refused_at_once(server, axis, words):
    before = len(server.log())
    answer = plotted(server, axis)
    assert answer.status == 422 and all(word in answer.error for word in words), answer.error
    assert "Traceback" not in server.log()[before:]


def test_an_axis_of_numbers_may_be_a_range(server):
    texts = plotted(server, ("[FAM] Cutoff c", "0.1-0.3 (+0.2)", [])).infotexts
    assert ["FAM cutoff: 0.1," in texts[1], "FAM cutoff: 0.3" in texts[2]] == [True, True]


def test_a_cell_that_cannot_be_leaves_the_others_and_is_one_line(server):
    before = len(server.log())
    answer = plotted(server, ("[FAM] Preset", "", ["paper", "balanced"]), ("Sampler", "", ["UniPC", "Euler"]))
    said = server.log()[before:]
    assert answer.status == 200 and "Traceback" not in said and said.count("state of sampler UniPC") == 2, said
    assert [("FAM version" in (text or "")) for text in answer.infotexts[1:5]] == [False, False, True, True]


def test_x_y_z_axes(server, check_off):
    info = server.ask("/sdapi/v1/script-info")[1]
    plot = next(entry for entry in info if entry["name"] == "x/y/z plot" and not entry["is_img2img"])
    labels = plot["args"][0]["choices"]
    assert len(labels) == len(set(labels))
    ours = [label for label in labels if label.startswith("[FAM] ")]
    assert "[FAM] Preset" in ours and "[FAM] Start (rho)" in ours and len(ours) == 17
    defaults = [argument["value"] for argument in plot["args"]]
    # type, values and dropdown of x, y and z
    arguments = [labels.index("[FAM] Native attention share"), "0.2, 0.9", []]
    arguments += [labels.index("[FAM] Preset"), "", ["paper", "few-step"], labels.index("Nothing"), "", []]
    labels_of = [argument["label"] for argument in plot["args"]]
    defaults[labels_of.index("Include Sub Images")] = True
    answer = server.generate(script_name="x/y/z plot", script_args=[*arguments, *defaults[len(arguments) :]])
    assert answer.status == 200, answer.error
    cells = answer.pixels[1:5]
    assert len(set(cells)) == 4
    assert [info.count("FAM version") for info in answer.infotexts[1:5]] == [1] * 4
    assert "FAM attention: 0.9" in "".join(answer.infotexts) and "FAM start: 0.7" in "".join(answer.infotexts)
    check_off()


@pytest.mark.parametrize(
    ("fam", "fields", "upscaler", "host"),
    [
        ({}, {}, "Latent", "Latent"),
        ({}, {"hr_upscaler": "Lanczos"}, "Lanczos", "Lanczos"),
        ({}, {"hr_upscaler": None}, "Latent", None),
        ({"upsample": "latent_bicubic"}, {}, None, "Latent (bicubic)"),
        ({"upsample": "latent_nearest"}, {}, None, "Latent (nearest-exact)"),
        ({"upsample": "pixel_bicubic"}, {}, None, None),
        ({"upsample": "pixel_lanczos"}, {"hr_upscaler": "Nearest", "batch_size": 2}, None, None),
    ],
)
def test_infotext_names_what_made_the_reference(server, fam, fields, upscaler, host):
    """With a pixel upsampling the WebUI's own upscaler makes nothing, and is not named."""
    made = server.generate(fam, **fields)
    assert made.fam.get("FAM upscaler") == upscaler
    named = re.search(r"Hires upscaler: ([^,]*)", made.infotexts[0])
    assert (named and named[1]) == host
    assert server.ask("/sdapi/v1/upscalers")[1][-1]["name"] != f"FAM {fam.get('upsample')}"


def test_img2img_names_what_made_the_reference(server, native_picture):
    fields = {"tab": "img2img", "init_images": [encoded(native_picture)], "width": 128, "height": 128}
    assert server.generate({}, **fields).fam["FAM upscaler"] == "Lanczos"
    assert server.generate({}, resize_mode=3, **fields).fam["FAM upscaler"] == "Latent"
    assert "FAM upscaler" not in server.generate({"upsample": "pixel_bicubic"}, **fields).fam
