"""Networks that turn pictures into features, and the names of what is measured with them.

demo-net is ours and its distances are never called FID or KID; Inception and CLIP run only from the user's own weight
files, and then the numbers have their usual names.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fam_ext.errors import UsageError
from fam_ext.quality.structure import Picture

Features = NDArray[np.float32]
INCEPTION_SIDE = 299
_NOT_IMPORTED = (ImportError, RuntimeError, OSError, AttributeError)
"""What an import raises where a package is missing, or torchvision is not of the torch."""


@dataclass(frozen=True)
class Extractor:
    """One network, or two of one name: `whole` gives (N, D) of pictures of any sizes, `crops` of crops."""

    name: str
    frechet: str
    """What the Fréchet distance of its features is called."""
    kernel: str
    whole: Callable[[Sequence[Picture]], Features]
    crops: Callable[[Sequence[Picture]], Features]


@dataclass(frozen=True)
class Clip:
    """CLIP: `score` gives 100 times the cosine of a picture and its prompt, 0 at least."""

    score: Callable[[Picture, str], float]


def demo_net() -> tuple[Extractor, Callable[[Picture, str], dict[str, float | None]]]:
    """Return the shipped demo-net, and what says whether it sees what a prompt names: "agrees_thing" and
    "agrees_material", 0 or 100, both None where it names no thing. A prompt without a material asks for a plain one."""
    from fam_ext.demo.demo_net import load_demo_net

    judge = load_demo_net()

    def tensors(pictures: Sequence[Picture]) -> list[torch.Tensor]:
        return [torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255 for picture in pictures]

    def agrees(picture: Picture, prompt: str) -> dict[str, float | None]:
        try:
            thing, material = judge.asked_for(prompt)
        except UsageError:
            return {"agrees_thing": None, "agrees_material": None}
        (seen,) = tensors([picture])
        return {
            "agrees_thing": 100.0 * (judge.thing_of(seen) == thing),
            "agrees_material": 100.0 * (judge.material_of(seen) == material),
        }

    def whole(pictures: Sequence[Picture]) -> Features:
        return judge.whole_features(tensors(pictures)).numpy()

    def crops(parts: Sequence[Picture]) -> Features:
        return torch.cat([judge.crop_features(part[None]) for part in tensors(parts)]).numpy()

    return Extractor("demo-net", "FD (demo-net)", "KD (demo-net)", whole, crops), agrees


def inception(file: str) -> Extractor:
    """Return Inception V3 as torch-fidelity builds it, with the weights of `file` (its own .pth). Raises `UsageError`.

    Pictures are shrunk to 299 px by an antialiased bicubic before it sees them, since its own resize has no filter.
    """
    path = _file(file, "--inception")
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import (  # pyright: ignore[reportMissingImports]
            FeatureExtractorInceptionV3,
        )
    except _NOT_IMPORTED as error:
        raise UsageError(
            f"--inception needs torch-fidelity and a torchvision that fits torch {torch.__version__} "
            f"({type(error).__name__}); install the extra fam-hires[fidelity]"
        ) from None
    try:
        # torch-fidelity unpickles without a guard: only a file that holds nothing but tensors gets there
        torch.load(path, map_location="cpu", weights_only=True)
        net = FeatureExtractorInceptionV3("inception-v3", ["2048"], feature_extractor_weights_path=str(path))
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, TypeError, pickle.UnpicklingError) as error:
        raise UsageError(
            f"--inception {path} is no weights file of torch-fidelity's Inception ({type(error).__name__}); give its "
            "weights-inception-2015-12-05 .pth"
        ) from None

    @torch.no_grad()
    def features(pictures: Sequence[Picture]) -> Features:
        side = (INCEPTION_SIDE, INCEPTION_SIDE)
        small = [np.asarray(Image.fromarray(one).resize(side, Image.Resampling.BICUBIC)) for one in pictures]
        (found,) = net(torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).contiguous())
        return found.float().numpy()

    return Extractor("inception", "FID", "KID", features, features)


def clip(folder: str) -> Clip:
    """Return CLIP from a transformers folder on this disk. Raises `UsageError`."""
    path = Path(folder).expanduser()
    if not (path / "config.json").is_file():
        raise UsageError(f"--clip {path} has no config.json; give the folder of a CLIP model as transformers saves it")
    from safetensors import SafetensorError

    try:
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

        net, loaded = CLIPModel.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]  # its types know no pair
            path, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        words = CLIPTokenizer.from_pretrained(path, local_files_only=True)
        view = CLIPImageProcessor.from_pretrained(path, local_files_only=True)
    except (SafetensorError, ValueError, KeyError, TypeError, *_NOT_IMPORTED) as error:
        raise UsageError(
            f"--clip {path} cannot be loaded ({type(error).__name__}); give the folder of a CLIP model with its "
            "safetensors weights, tokenizer and preprocessor"
        ) from None
    # what a file lacks is filled at random, without an error
    lacking = [name for name in loaded["missing_keys"] if not name.endswith("position_ids")]
    if net.config.model_type != "clip" or lacking:
        raise UsageError(
            f"--clip {path} is no whole CLIP model (its model_type is {net.config.model_type!r}, and {len(lacking)} "
            "weights are missing); give the folder of one, text and vision, as transformers saves it"
        )
    net.eval()

    longest = net.config.text_config.max_position_embeddings

    @torch.no_grad()
    def score(picture: Picture, prompt: str) -> float:
        texts = words([prompt], return_tensors="pt", padding=True, truncation=True, max_length=longest)
        seen = net(**texts, pixel_values=view(images=Image.fromarray(picture), return_tensors="pt")["pixel_values"])
        cosine = torch.nn.functional.cosine_similarity(seen.image_embeds, seen.text_embeds).item()
        return 100 * max(cosine, 0.0)

    return Clip(score)


def _file(name: str, flag: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise UsageError(f"{flag} {path} is no file; give the weights' path")
    return path
