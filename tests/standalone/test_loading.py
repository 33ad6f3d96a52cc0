"""Loading models of every kind that is offered, refusing the rest by name, and rendering requests with them."""

import json
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fam_ext import hires, standalone, weights
from fam_ext.core.config import FamConfig
from fam_ext.demo.export import export_checkpoint, unet_key_map, vae_key_map
from fam_ext.errors import UnsupportedModelError, UsageError
from fam_ext.jobs.contract import Progress
from fam_ext.jobs.ran_text import fields
from fam_ext.options.request import HiresRequest
from tests.hosts import toys
from tests.samplers.references import SCHEDULERS

pytestmark = pytest.mark.slow

REQUEST = HiresRequest(size=(96, 96), prompt="a cat", seed=1, steps=2, cfg_scale=3.0)
PICTURE = Image.effect_noise((64, 64), 40).convert("RGB")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    made = {
        "SD1.5": toys.sd_pipeline(),
        "SD2.1 v": toys.sd_pipeline(prediction_type="v_prediction"),
        "SDXL": toys.sdxl_pipeline(),
    }
    for name, pipe in made.items():
        pipe.save_pretrained(root / name)
    return {name: root / name for name in made}


def latent_of(host, image=PICTURE):
    kept = []
    decode = host.decode
    host.decode = lambda latent, **options: kept.append(latent) or decode(latent, **options)
    sampling = hires.Sampling(prompt="a cat", seed=1, steps=2, cfg_scale=3.0)
    hires.upscale(host, image, size=(96, 96), sampling=sampling)
    del host.decode
    return kept[0]


def test_the_embedded_model_says_its_own_native_size():
    host = standalone.load_pipeline()
    config = json.loads((standalone.demo_model() / "unet" / "config.json").read_text())
    assert host.native_side == config["sample_size"] * 8
    assert host.name == "fluent-tiny (embedded)" and not host.is_sdxl
    assert host.dtype == torch.float32


@pytest.mark.parametrize("kind", ["SD1.5", "SD2.1 v", "SDXL"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_diffusers_folders_render(folders, kind, dtype):
    host = standalone.load_pipeline(folders[kind], device="cpu", dtype=dtype)
    assert host.is_sdxl == (kind == "SDXL")
    assert host.pipe.scheduler.config.prediction_type == ("v_prediction" if kind == "SD2.1 v" else "epsilon")
    made = standalone.render_on(host, PICTURE, REQUEST, Progress())
    assert made.image.size == (96, 96) and next(iter(fields(made.ran))) == "FAM version"


def test_a_single_file_of_sd_layout_is_the_same_model(tmp_path):
    export_checkpoint(tmp_path, name="tiny")
    file = tmp_path / "tiny.safetensors"
    assert weights.architecture(file) == "SD1.5"
    single = standalone.load_pipeline(file, config=standalone.demo_model())
    assert torch.allclose(latent_of(single), latent_of(standalone.load_pipeline()), atol=2e-3)


def test_a_single_file_of_sdxl_layout_is_the_same_model(tmp_path, folders):
    pipe = toys.sdxl_pipeline()
    file = tmp_path / "xl.safetensors"
    save_file(sdxl_state_dict(pipe), file)
    assert weights.architecture(file) == "SDXL"
    single = standalone.load_pipeline(file, config=folders["SDXL"])
    assert torch.allclose(latent_of(single), latent_of(standalone.load_pipeline(folders["SDXL"])), atol=1e-4)
    assert standalone.load_renderer(str(file), config=str(folders["SDXL"])).host.is_sdxl
    with pytest.raises(UnsupportedModelError, match=r"nowhere has no model_index.json; give --model-config"):
        standalone.load_pipeline(file, config=tmp_path / "nowhere")


@pytest.mark.parametrize(
    "gone",
    ["first_stage_model", "first_stage_model.encoder", "conditioner.embedders.0", "conditioner.embedders.1.model.ln"],
)
def test_a_single_file_that_lacks_a_part_is_one_sentence(tmp_path, folders, gone):
    file = tmp_path / "xl.safetensors"
    state = sdxl_state_dict(toys.sdxl_pipeline())
    save_file({key: value for key, value in state.items() if not key.startswith(gone)}, file)
    with pytest.raises(UnsupportedModelError, match=r"xl.safetensors lacks some of its networks \("):
        standalone.load_pipeline(file, config=folders["SDXL"])


@pytest.mark.parametrize(("bias", "prediction", "side"), [(0.0, "epsilon", 512), (-2.0, "v_prediction", 768)])
def test_an_sd2_file_is_asked_what_it_predicts(tmp_path, monkeypatch, bias, prediction, side):
    from diffusers import StableDiffusionPipeline

    pipe = toys.sd_pipeline()
    pipe.unet.conv_out.bias.data.fill_(bias)
    monkeypatch.setattr(StableDiffusionPipeline, "from_single_file", lambda file, **options: pipe)
    file = tmp_path / "sd2.safetensors"
    save_file({"cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight": torch.zeros(1)}, file)
    host = standalone.load_pipeline(file, device="cpu")
    assert host.prediction == pipe.scheduler.config.prediction_type == prediction
    assert pipe.unet.config.sample_size * 8 == side


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "PNDMScheduler"])  # SDXL's base has Euler's, SD1.5's PNDM
@pytest.mark.parametrize("marks", [(), ("v_pred",), ("v_pred", "ztsnr")])
@pytest.mark.parametrize("spaced", [True, False])
def test_a_single_files_marks_set_its_scheduler(tmp_path, marks, scheduler, spaced):
    import diffusers

    file, pipe = tmp_path / "xl.safetensors", toys.sdxl_pipeline()
    pipe.scheduler = getattr(diffusers, scheduler)(**toys.training())
    pipe.save_pretrained(tmp_path / "config")
    if not spaced:
        unspaced(tmp_path / "config")
    save_file(sdxl_state_dict(pipe) | {mark: torch.zeros(0) for mark in marks}, file)
    host = standalone.load_pipeline(file, config=tmp_path / "config", device="cpu")
    config = host.pipe.scheduler.config
    assert config.prediction_type == ("v_prediction" if "v_pred" in marks else "epsilon")
    first = host.sampler("Euler", "Uniform", 4, seeds=[1]).levels[0]
    if "ztsnr" in marks:
        assert first.timestep == 999 and first.sigma > 4000  # 14.6 without
        assert host.sampler("DDIM", "Uniform", 5, seeds=[1]).levels[0].signal == 0
    else:
        assert first.timestep == (751 if spaced else 999)


def unspaced(folder):
    """Let a saved pipeline's scheduler name no timestep spacing, as SD1.5's and SD2.1's own."""
    settings = folder / "scheduler" / "scheduler_config.json"
    kept = {key: value for key, value in json.loads(settings.read_text()).items() if key != "timestep_spacing"}
    settings.write_text(json.dumps(kept))


@pytest.mark.parametrize("sampler", sorted(set(SCHEDULERS) - {"LCM"}))
def test_a_model_that_names_no_spacing_has_each_samplers_own(tmp_path, sampler):
    import diffusers

    pipe = toys.sd_pipeline()
    pipe.scheduler = diffusers.PNDMScheduler(**toys.training(), skip_prk_steps=True)
    pipe.save_pretrained(tmp_path)
    unspaced(tmp_path)
    host = standalone.load_pipeline(tmp_path, device="cpu")
    theirs = getattr(diffusers, SCHEDULERS[sampler][0]).from_config(host.pipe.scheduler.config)
    theirs.set_timesteps(20)
    ours = host.sampler(sampler, "Uniform", 20, seeds=[1])
    assert ours.levels[0].timestep == float(theirs.timesteps[0]) == (951 if sampler == "DDIM" else 999)


@pytest.mark.parametrize(
    ("said", "beside", "is_v"),
    [
        (None, None, False),
        ({"modelspec.prediction_type": "v"}, None, True),
        ({"modelspec.prediction_type": "epsilon"}, "model:\n  params:\n    timesteps: 1000\n", False),
        ({}, 'model:\n  params:\n    parameterization: "v"\n    timesteps: 1000\n', True),
        ({}, "parameterization: v  # as trained", True),
        ({}, "parameterization: eps\n# parameterization: v\n", False),
        ({}, "parameterization: velocity", False),
        ({}, "# \xe9 in another coding\nparameterization: 'v'", True),
        ({}, (1 << 20) * "\n" + "parameterization: v", False),  # no settings are so long
    ],
)
def test_v_prediction_is_read_where_a_file_or_its_yaml_says_so(tmp_path, said, beside, is_v):
    file = tmp_path / "model.safetensors"
    save_file({"x": torch.zeros(1)}, file, metadata=said)
    if beside is not None:
        file.with_suffix(".yaml").write_bytes(beside.encode("latin-1"))
    assert weights.marked_training(file) == ({"prediction_type": "v_prediction"} if is_v else {})


def sdxl_state_dict(pipe):
    """The weights of `pipe` under the names of SDXL's own checkpoints; its second text encoder in open_clip's."""
    state = {}
    for key, value in pipe.unet.state_dict().items():
        name = unet_key_map(dict(pipe.unet.config))(key)
        if name is None:  # add_embedding.linear_1 and linear_2
            _, layer, part = key.split(".")
            name = f"label_emb.0.{0 if layer == 'linear_1' else 2}.{part}"
        state[f"model.diffusion_model.{name}"] = value
    for key, value in pipe.vae.state_dict().items():
        name = vae_key_map(dict(pipe.vae.config))(key)
        # ldm's VAE attends by 1x1 convolutions
        is_projection = ".mid.attn_1." in name and value.ndim == 2
        state[f"first_stage_model.{name}"] = value[:, :, None, None] if is_projection else value
    for key, value in pipe.text_encoder.state_dict().items():
        inner = key if key.startswith("text_model.") else f"text_model.{key}"
        state[f"conditioner.embedders.0.transformer.{inner}"] = value
    state |= {f"conditioner.embedders.1.model.{key}": value for key, value in open_clip(pipe.text_encoder_2).items()}
    return {key: value.contiguous().clone() for key, value in state.items()}


def open_clip(encoder):
    state, ours = {}, encoder.state_dict()
    ours = {key.removeprefix("text_model."): value for key, value in ours.items()}
    state["text_projection"] = ours["text_projection.weight"].T
    state["positional_embedding"] = ours["embeddings.position_embedding.weight"]
    state["token_embedding.weight"] = ours["embeddings.token_embedding.weight"]
    names = {"mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2"}
    for layer in range(encoder.config.num_hidden_layers):
        for part in ("weight", "bias"):
            state[f"ln_final.{part}"] = ours[f"final_layer_norm.{part}"]
            old, new = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
            state[f"{new}.attn.in_proj_{part}"] = torch.cat([ours[f"{old}.self_attn.{x}_proj.{part}"] for x in "qkv"])
            state[f"{new}.attn.out_proj.{part}"] = ours[f"{old}.self_attn.out_proj.{part}"]
            for ours_name, theirs in names.items():
                state[f"{new}.{theirs}.{part}"] = ours[f"{old}.{ours_name}.{part}"]
    return state


def test_a_lora_changes_the_picture_by_its_weight(tmp_path, folders):
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet = toys.sd_unet()
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers, weight_name="style.safetensors")
    lora = str(tmp_path / "style.safetensors")
    plain, none, half, full = (
        latent_of(standalone.load_pipeline(folders["SD1.5"], loras=loras))
        for loras in ((), [(lora, 0.0)], [(lora, 0.5)], [(lora, 1.0)])
    )
    assert torch.allclose(plain, none, atol=1e-5)
    assert standalone.load_pipeline(folders["SD1.5"], loras=[(lora, 0.5)]).loras == [("style", 0.5)]
    moved = (half - plain).norm(), (full - plain).norm()
    assert 0 < moved[0] < moved[1]
    with pytest.raises(UnsupportedModelError, match=r"style\.safetensors does not fit the model"):
        standalone.load_pipeline(folders["SDXL"], loras=[(lora, 1.0)])
    with pytest.raises(UnsupportedModelError, match=r"not a \.safetensors file"):
        standalone.load_pipeline(folders["SD1.5"], loras=[("nowhere.pt", 1.0)])
    layer = "transformer.transformer_blocks.0.attn.to_q.lora"  # Flux's and SD3's in diffusers' names
    save_file(
        {f"{layer}_A.weight": torch.ones(2, 32), f"{layer}_B.weight": torch.ones(32, 2)}, tmp_path / "f.safetensors"
    )
    with pytest.raises(UnsupportedModelError, match=r"LoRA f.safetensors does not fit the model"):
        standalone.load_pipeline(folders["SD1.5"], loras=[(str(tmp_path / "f.safetensors"), 1.0)])


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight", "SD3"),
        ("double_blocks.0.img_attn.norm.key_norm.scale", "Flux"),
        ("conditioner.embedders.0.model.transformer.resblocks.0.attn.in_proj_weight", "the SDXL refiner"),
        ("edm_mean", "an EDM model"),
        ("edm_vpred.sigma_max", "CosXL"),
        ("something.else", "unknown"),
    ],
)
def test_other_architectures_are_refused_by_name(tmp_path, key, named):
    file = tmp_path / "model.safetensors"
    save_file({key: torch.zeros(1)}, file)
    with pytest.raises(UnsupportedModelError, match=rf"is {named}.*; choose a model of SD1\.5, SD2\.1 and SDXL"):
        standalone.load_pipeline(file)


def test_files_that_are_no_models_are_refused(tmp_path):
    with pytest.raises(UnsupportedModelError, match="does not exist"):
        standalone.load_pipeline(tmp_path / "nothing")
    with pytest.raises(UnsupportedModelError, match=r"no model_index\.json"):
        standalone.load_pipeline(tmp_path)
    (tmp_path / "model.ckpt").write_bytes(b"\x80\x04.")
    with pytest.raises(UnsupportedModelError, match=r"pickled checkpoint.*safetensors"):
        standalone.load_pipeline(tmp_path / "model.ckpt")
    headers = struct.pack("<Q", 10**12), struct.pack("<Q", 4) + b"nope", struct.pack("<Q", 1) + b"5"
    for data in (b"", b"abc", *headers):
        (tmp_path / "bad.safetensors").write_bytes(data)
        with pytest.raises(UnsupportedModelError, match=r"bad\.safetensors is not a safetensors file"):
            standalone.load_pipeline(tmp_path / "bad.safetensors")
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(UnsupportedModelError, match="FluxPipeline; choose a model of"):
        standalone.load_pipeline(tmp_path)


@pytest.mark.parametrize(
    ("option", "match"),
    [({"device": "tpu"}, "device is 'tpu'; choose one"), ({"dtype": "int8"}, "dtype is 'int8'; choose one of float32")],
)
def test_unknown_devices_and_dtypes_are_refused(option, match):
    with pytest.raises(UsageError, match=match):
        standalone.load_pipeline(**option)


def test_metadata_says_what_ran(folders):
    renderer = standalone.load_renderer(str(folders["SD1.5"]), device="cpu")
    fam = fields(renderer.render(PICTURE, REQUEST, Progress()).ran)
    assert next(iter(fam)) == "FAM version" and fam["FAM method"] == "fam" and "FAM no AM" not in fam
    no_am = HiresRequest(size=(96, 96), steps=2, config=FamConfig(am=False))
    assert fields(renderer.render(PICTURE, no_am, Progress()).ran)["FAM no AM"] == "True"
    # a window in which no step lies: AM was asked for, but did not act
    outside = HiresRequest(size=(96, 96), steps=2, config=FamConfig(am_window=(0.02, 0.01)))
    assert fields(renderer.render(PICTURE, outside, Progress()).ran)["FAM no AM"] == "True"
    for method in ("direct", "direct-from-native", "skip-residual"):
        ran = fields(renderer.render(PICTURE, HiresRequest(size=(96, 96), steps=2, method=method), Progress()).ran)
        assert "FAM version" not in ran and ran["FAM method"] == method
    nothing = HiresRequest(size=(96, 96), steps=2, config=FamConfig(fm=False, am=False))
    assert "FAM version" not in fields(renderer.render(PICTURE, nothing, Progress()).ran)


def test_generate_records_its_native_run(folders):
    host = standalone.load_pipeline(folders["SD1.5"], device="cpu")
    steps = []
    made, native = standalone.generate(
        host,
        HiresRequest(size=(128, 128), prompt="a cat", steps=3, config=FamConfig(am_source="recorded")),
        progress=Progress(step=lambda done, total: steps.append((done, total))),
    )
    assert native.size == (64, 64) and made.image.size == (128, 128)
    assert steps == [(done, 6) for done in range(1, 7)]
    assert not np.array_equal(np.asarray(made.image.resize((64, 64))), np.asarray(native))


def test_the_tag_of_a_model_is_that_of_its_weights(tmp_path):
    (tmp_path / "unet").mkdir()
    weights = tmp_path / "unet" / "a.safetensors"
    weights.write_bytes(b"one")
    first = standalone.weights_tag(tmp_path)
    assert first == standalone.weights_tag(weights) and len(first) == 8
    (tmp_path / "unet" / "config.json").write_text("{}")
    assert standalone.weights_tag(tmp_path) == first
    weights.write_bytes(b"two")
    assert standalone.weights_tag(tmp_path) != first
