"""Reading a diffusers pipeline from a folder or a file, with LoRAs; and the device and number format by name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fam_ext.errors import UnsupportedModelError, UsageError, is_out_of_memory
from fam_ext.weights import architecture, marked_training

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SUPPORTED = "SD1.5, SD2.1 and SDXL"
NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
PICKLES = (".ckpt", ".pt", ".pth", ".bin")


def read_pipeline(
    source: Path,
    dtype: torch.dtype,
    *,
    loras: Sequence[tuple[str, float]] = (),
    config: str | os.PathLike[str] | None = None,
) -> Any:  # noqa: ANN401
    """Return the text-to-image pipeline in `source`, a diffusers folder or a `.safetensors` checkpoint, on the CPU.

    `loras` are (file, weight); `config` as in `standalone.load_pipeline`. Raises `UnsupportedModelError`.
    """
    pipe = _from_folder(source, dtype) if source.is_dir() else _from_file(source, dtype, config)
    _check_network(pipe, source.name)
    for file, weight in loras:
        _add_lora(pipe, file, weight)
    return pipe


def _from_folder(folder: Path, dtype: torch.dtype) -> Any:  # noqa: ANN401
    import diffusers

    index = folder / "model_index.json"
    if not index.is_file():
        raise UnsupportedModelError(f"{folder} has no model_index.json; give the folder of a diffusers pipeline")
    try:
        parts = dict(json.loads(index.read_text(encoding="utf-8")))
    except (TypeError, ValueError):
        raise UnsupportedModelError(f"{index} is not a diffusers pipeline's; give the folder of one") from None
    kind = parts.get("_class_name", "")
    if "XL" in kind and (parts.get("text_encoder") or [None])[0] is None:
        raise UnsupportedModelError(f"{folder.name} is the SDXL refiner; choose a model of {SUPPORTED}")
    if kind not in ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "LatentConsistencyModelPipeline"):
        raise UnsupportedModelError(
            f"{folder.name} is a {kind or 'folder of unknown kind'}; choose a model of {SUPPORTED}"
        )
    weights = list((folder / "unet").glob("*.safetensors"))
    if not weights:
        raise UnsupportedModelError(f"{folder.name} has no .safetensors weights; pickled weights are not loaded")
    options: dict[str, Any] = {"dtype": dtype, "local_files_only": True}
    try:
        networks = {name: _network(folder / name, parts[name], options) for name in NETWORKS if name in parts}
        if kind != "StableDiffusionXLPipeline":
            options |= {"safety_checker": None, "requires_safety_checker": False}
        return getattr(diffusers, kind).from_pretrained(folder, **networks, **options)
    except UnsupportedModelError:
        raise
    except Exception as error:  # whatever a folder's files make of the libraries
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UnsupportedModelError(
            f"{folder.name} lacks a part or its .safetensors weights, or holds one that does not fit ({reason});"
            " pickled weights are not loaded: give a whole pipeline, saved as safetensors"
        ) from error


def _network(folder: Path, entry: Sequence[str], options: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return the network in `folder`, of the library and class that `entry` names.

    Raises `UnsupportedModelError` where its files lack weights, which the libraries would fill at random.
    """
    import diffusers
    import transformers

    library, kind = entry
    libraries = {"diffusers": diffusers, "transformers": transformers}
    files = [file.name for file in folder.glob("*.safetensors")]
    variant = "fp16" if files and all(".fp16." in name for name in files) else None
    network, found = getattr(libraries[library], kind).from_pretrained(
        folder, variant=variant, use_safetensors=True, output_loading_info=True, **options
    )
    lacking = sorted(found["missing_keys"])
    if lacking:
        raise UnsupportedModelError(
            f"{folder.name} of {folder.parent.name} lacks {len(lacking)} of its weights (the first is {lacking[0]});"
            " give a whole pipeline, saved as safetensors"
        )
    return network


def _from_file(file: Path, dtype: torch.dtype, config: str | os.PathLike[str] | None) -> Any:  # noqa: ANN401
    from diffusers.loaders.single_file_utils import SingleFileComponentError
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline

    if file.suffix.lower() in PICKLES:
        raise UnsupportedModelError(
            f"{file.name} is a pickled checkpoint, which can run code; convert it to .safetensors, the only kind loaded"
        )
    kind = architecture(file)
    if kind not in ("SD1.5", "SD2.1", "SDXL"):
        raise UnsupportedModelError(f"{file.name} is {kind}; choose a model of {SUPPORTED}")
    pipeline = StableDiffusionXLPipeline if kind == "SDXL" else StableDiffusionPipeline
    options: dict[str, Any] = {"dtype": dtype}
    if config is not None:
        if not Path(config, "model_index.json").is_file():
            raise UnsupportedModelError(f"{config} has no model_index.json; give --model-config a diffusers folder")
        options |= {"config": str(config), "local_files_only": True}
    if kind != "SDXL":
        options |= {"safety_checker": None}
    try:
        pipe = pipeline.from_single_file(str(file), **options)
    except (SingleFileComponentError, ValueError, NotImplementedError) as error:
        raise _lacking(file, (str(error).strip() or type(error).__name__).splitlines()[0][:200]) from error
    except OSError as error:
        raise UnsupportedModelError(
            f"{file.name} is {kind}, whose settings and tokenizer could not be fetched; go online once, or give a"
            " diffusers folder of the same architecture with --model-config"
        ) from error
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and any(weight.is_meta for weight in part.parameters()):
            raise _lacking(file, f"{name} is not whole")
    if kind == "SD2.1" and config is None:
        _settle_sd2(pipe)
    marks = marked_training(file)
    added = [name for name in pipe.scheduler.config.get("_use_default_values", ()) if name not in marks]
    # its class may not know them; only settings are read
    pipe.scheduler.register_to_config(**marks, _use_default_values=added)
    return pipe


def _lacking(file: Path, reason: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{file.name} lacks some of its networks ({reason}); give a checkpoint that holds VAE and text encoders, or a"
        " diffusers folder"
    )


@torch.inference_mode()
def _settle_sd2(pipe: Any) -> None:  # noqa: ANN401
    """Set what the keys of an SD2 checkpoint do not tell: v-prediction at 768 px, or epsilon at 512. Asks the network
    as the WebUI does: of a constant latent at the noisiest timestep, one that predicts v answers far below it."""
    unet = pipe.unet
    latent = torch.full((1, unet.config.in_channels, 8, 8), 0.5, dtype=unet.dtype)
    words = torch.full((1, 2, unet.config.cross_attention_dim), 0.5, dtype=unet.dtype)
    answer = unet(latent, 999, encoder_hidden_states=words).sample
    predicts_v = float(answer.float().mean()) - 0.5 < -1
    pipe.scheduler.register_to_config(prediction_type="v_prediction" if predicts_v else "epsilon")
    unet.register_to_config(sample_size=96 if predicts_v else 64)


def _check_network(pipe: Any, name: str) -> None:  # noqa: ANN401
    """Raise `UnsupportedModelError` for a network or a scheduler of a kind that is not text to image by betas."""
    kinds = {9: "an inpainting model (9 channels)", 8: "a pix2pix model (8 channels)"}
    channels = pipe.unet.config.in_channels
    if channels in kinds:
        raise UnsupportedModelError(f"{name} is {kinds[channels]}; choose a text-to-image model of {SUPPORTED}")
    family = type(pipe.scheduler).__name__
    if "beta_schedule" not in pipe.scheduler.config:
        raise UnsupportedModelError(
            f"{name} has the scheduler {family}, of another family than {SUPPORTED}'s (betas); choose another model"
        )


def _add_lora(pipe: Any, file: str, weight: float) -> None:  # noqa: ANN401
    path = Path(file).expanduser()
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        raise UnsupportedModelError(f"LoRA {path} is not a .safetensors file; give the path of one")
    name = "".join(letter if letter.isalnum() else "_" for letter in path.stem)
    try:
        pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name, local_files_only=True)
        if not any(name in names for names in pipe.get_list_adapters().values()):
            raise ValueError("none of its layers are the model's")
        pipe.fuse_lora(lora_scale=weight, adapter_names=[name])
        pipe.unload_lora_weights()
    except (ValueError, KeyError, RuntimeError) as error:
        raise UnsupportedModelError(
            f"LoRA {path.name} does not fit the model ({str(error).splitlines()[0]}); use one for this architecture"
        ) from error


def pick_device(name: str | None) -> torch.device:
    """Return the device of that name; None: the best there is. Raises `UsageError`."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name is None:
        return torch.device(next(device for device in ("cuda", "mps", "cpu") if available[device]))
    kind = name.split(":")[0]
    if kind not in available or not available[kind]:
        there = ", ".join(device for device, present in available.items() if present)
        raise UsageError(f"device is {name!r}; choose one that this machine has: {there}")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device is {name!r}; choose {kind} or a numbered one such as {kind}:0") from None
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if device.index is not None and device.index >= count:
        there = ", ".join(f"{kind}:{index}" for index in range(count))
        raise UsageError(f"device is {name!r}; choose one that this machine has: {there}")
    return device


def why_no_gpu() -> str:
    """Return why `pick_device` finds none, a few words for whoever has one."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built without CUDA; install one for your GPU (pytorch.org)"
    return f"torch {torch.__version__} finds no GPU; look at the driver (nvidia-smi)"


def pick_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """Return the number format of that name; None: what suits `device`. Raises `UsageError`."""
    if name is None:
        return torch.float32 if device.type == "cpu" else torch.float16
    if name not in DTYPES:
        raise UsageError(f"dtype is {name!r}; choose one of {', '.join(DTYPES)}")
    return DTYPES[name]


def quiet_libraries() -> None:
    """Keep the loaders' progress bars and advice off the terminal, which is the job's."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
