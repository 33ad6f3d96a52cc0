"""What a file or folder of weights tells of itself, read without torch: its hashes, its architecture, its marks."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import struct
from pathlib import Path
from typing import Any, cast

from fam_ext.errors import UnsupportedModelError

_PIECE = 1 << 20
_MARKED, _MARKED_PIECE = 64, 1 << 16
ARCHITECTURES = (
    ("edm_vpred.sigma_max", "CosXL (an EDM model)"),
    ("edm_mean", "an EDM model (Playground v2.5)"),
    ("double_blocks.0.img_attn.norm.key_norm.scale", "Flux"),
    ("joint_blocks.0.context_block.attn.qkv.weight", "SD3"),
    ("conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight", "SDXL"),
    ("conditioner.embedders.0.model.transformer.resblocks.0.attn.in_proj_weight", "the SDXL refiner"),
    ("cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight", "SD2.1"),
    ("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", "SD1.5"),
    ("cond_stage_model.transformer.embeddings.token_embedding.weight", "SD1.5"),
)


def weights_hash(source: Path) -> str:
    """Return the SHA-256 of a checkpoint, or of a diffusers folder's `*/*.safetensors` one after the other; 64
    hexadecimal digits. Memory is bounded. Read once, until a file's path, size or time changes. Raises
    `UnsupportedModelError` where there are no weights."""
    files: list[Path] = [source] if source.is_file() else sorted(source.glob("*/*.safetensors"))
    if not files:
        raise UnsupportedModelError(f"{source} has no .safetensors weights; give a checkpoint or a diffusers folder")
    return _hash(tuple((file, status.st_size, status.st_mtime_ns) for file in files for status in [file.stat()]))


def settings_hash(folder: Path) -> str:
    """Return the SHA-256 of a model folder's settings: its JSON and text files, as scheduler, tokenizers and the
    networks' shapes; 64 hexadecimal digits. They decide pixels as the weights do. A checkpoint's file has none."""
    files = sorted(file for pattern in ("*.json", "*.txt", "*/*.json", "*/*.txt") for file in folder.glob(pattern))
    found = [(file.relative_to(folder).as_posix(), hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def weights_mark(source: Path) -> str:
    """Return a short mark of the weights and settings of a file or diffusers folder, wherever it lies; "" where it
    cannot be read. Of a file of more than 4 MB its size and 64 pieces count, evenly spread: a checkpoint's whole hash
    takes as long as reading it."""
    digest = hashlib.sha256()
    try:
        folder = source.is_dir()
        for file in sorted(source.glob("*/*.safetensors")) if folder else [source]:
            if not file.is_file():
                return ""  # a FIFO would be waited for
            size = file.stat().st_size
            digest.update(size.to_bytes(8, "big"))
            with file.open("rb") as stream:
                for number in range(_MARKED):
                    stream.seek(max(0, size - _MARKED_PIECE) * number // (_MARKED - 1))
                    digest.update(stream.read(_MARKED_PIECE))
        digest.update(settings_hash(source).encode() if folder else b"")
        return digest.hexdigest()[:16]
    except OSError:
        return ""


@functools.lru_cache(maxsize=64)
def _hash(files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for file, _, _ in files:
        with file.open("rb") as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
    return digest.hexdigest()


def architecture(file: Path) -> str:
    """Return what a `.safetensors` checkpoint is by its keys: "SD1.5", "SD2.1", "SDXL", "SD3", "Flux" or "unknown".

    Reads the header only. Raises `UnsupportedModelError` when the file is not safetensors.
    """
    keys = _safetensors_header(file)
    plain = {key.removeprefix("model.diffusion_model.") for key in keys}
    return next((name for key, name in ARCHITECTURES if key in plain), "unknown")


def marked_training(file: Path) -> dict[str, Any]:
    """Return the scheduler settings that a `.safetensors` checkpoint's own marks ask for, as the WebUI reads them.

    The key `v_pred` is v-prediction, as are a `.yaml` of its name beside it that says so, and `modelspec` in its
    header; `ztsnr` is zero terminal SNR, which needs the noisiest timestep: trailing spacing.
    """
    keys = _safetensors_header(file)
    settings: dict[str, Any] = {}
    said = keys.get("__metadata__")
    is_spec_v = isinstance(said, dict) and cast("dict[str, object]", said).get("modelspec.prediction_type") == "v"
    if "v_pred" in keys or is_spec_v or _yaml_says_v(file.with_suffix(".yaml")):
        settings["prediction_type"] = "v_prediction"
    if "ztsnr" in keys:
        settings |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return settings


def _yaml_says_v(file: Path) -> bool:
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            text = stream.read(_PIECE)
    except OSError:
        return False
    return re.search(r"""^ *parameterization: *(["']?)v\1 *(#.*)?$""", text, re.MULTILINE) is not None


def _safetensors_header(file: Path) -> dict[str, Any]:
    broken = UnsupportedModelError(
        f"{file.name} is not a safetensors file; give a diffusers folder or a .safetensors file"
    )
    if not file.is_file():
        raise broken  # a FIFO would be waited for
    try:
        with file.open("rb") as stream:
            length = struct.unpack("<Q", stream.read(8))[0]
            if length > min(file.stat().st_size, 2**28):
                raise broken
            return dict(json.loads(stream.read(length)))
    except (struct.error, ValueError, TypeError) as error:
        raise broken from error
