"""Networks by their own names: demo-net is never FID, Inception and CLIP only from the user's files."""

import json
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from fam_ext.errors import UsageError
from fam_ext.quality import extractors
from fam_ext.quality.columns import GROUPS, set_columns
from fam_ext.quality.ruler import cut

PICTURES = list(np.random.default_rng(0).integers(0, 255, (3, 40, 50, 3), np.uint8))


class FakeInception(torch.nn.Module):
    """The interface of torch-fidelity 0.4: uint8 pictures in, a tuple with one entry a feature out."""

    def __init__(self, name, features_list, feature_extractor_weights_path=None, **more):
        super().__init__()
        assert features_list == ["2048"]
        self.weight = torch.load(feature_extractor_weights_path, weights_only=False)["weight"]

    def forward(self, images):
        assert images.dtype == torch.uint8 and images.shape[1:] == (3, 299, 299)
        return (images.float().mean(dim=(2, 3)) @ self.weight,)


@pytest.fixture
def fidelity(monkeypatch):
    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = FakeInception
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_demo_net_has_its_own_names_and_says_what_it_sees_of_a_prompt():
    demo, agrees = extractors.demo_net()
    assert demo.whole(PICTURES).shape == (3, 256) and demo.crops(PICTURES).shape == (3, 128)
    titles = [column.title for column in set_columns((demo,))]
    assert titles[0] == "FD (demo-net), crops" and not any("FID" in title or "KID" in title for title in titles)
    assert agrees(PICTURES[0], "a knitted sea") == {"agrees_thing": None, "agrees_material": None}
    both = agrees(PICTURES[0], "a knitted teapot")
    assert set(both) == {column.key for column in GROUPS["Objects and words"] if "(demo-net)" in column.title}
    assert set(both.values()) <= {0.0, 100.0}
    even = np.full_like(PICTURES[0], 200)
    seen = {prompt: agrees(even, prompt)["agrees_material"] for prompt in ("a teapot", "a knitted teapot")}
    assert seen == {"a teapot": 100.0, "a knitted teapot": 0.0}  # without a word for it a thing is asked for plain


def test_demo_net_sees_the_crops_of_a_resize_as_others_and_the_whole_as_the_same():
    """Checks of 8 px, and what a plain resize makes of them."""
    native = np.kron(np.indices((32, 32)).sum(axis=0) % 2, np.ones((8, 8)))[..., None] * np.array([200, 120, 90])
    native = native.astype(np.uint8)
    resized = np.asarray(Image.fromarray(native).resize((512, 512), Image.Resampling.BICUBIC))
    demo, _ = extractors.demo_net()

    def apart(features):
        (one, other) = features
        return float(np.linalg.norm(one - other) / np.linalg.norm(one))

    assert apart(demo.whole([native, resized])) < 0.1 < apart(demo.crops([native[:128, :128], resized[:128, :128]]))


def test_inception_from_a_file_is_called_fid(fidelity, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.ones(3, 2048)}, path)
    found = extractors.inception(str(path))
    assert found.whole(PICTURES).shape == found.crops(PICTURES).shape == (3, 2048)
    assert [column.title for column in set_columns((found,))][:2] == ["FID, crops", "KID, crops"]


class Harm:
    def __reduce__(self):
        return (sys.exit, ("ran",))


@pytest.mark.parametrize("content", [b"", b"no weights at all", "pickle", "other"])
def test_a_file_that_holds_no_weights_is_refused_and_never_run(fidelity, tmp_path, content):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"weight": Harm()} if content == "pickle" else {"other": torch.ones(2)}, path)
    with pytest.raises(UsageError, match="is no weights file of torch-fidelity's Inception"):
        extractors.inception(str(path))


def test_without_torch_fidelity_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    path = tmp_path / "weights.pth"
    path.write_bytes(b"x")
    with pytest.raises(UsageError, match=r"install the extra fam-hires\[fidelity\]"):
        extractors.inception(str(path))


@pytest.mark.parametrize("fault", [RuntimeError, OSError, AttributeError])
def test_a_torchvision_that_does_not_fit_is_one_sentence(tmp_path, monkeypatch, fault):
    class Torn(types.ModuleType):
        def __getattr__(self, name):
            raise fault("operator torchvision::nms does not exist")

    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    name = "torch_fidelity.feature_extractor_inceptionv3"
    monkeypatch.setitem(sys.modules, name, Torn(name))
    (tmp_path / "weights.pth").write_bytes(b"x")
    with pytest.raises(UsageError, match="a torchvision that fits torch"):
        extractors.inception(str(tmp_path / "weights.pth"))


def test_crops_are_the_same_for_pictures_of_one_size_and_never_resized():
    parts = cut(PICTURES[0], crop=24, count=5, seed=3)
    assert [part.shape for part in parts] == [(24, 24, 3)] * 5
    other = cut(PICTURES[1], crop=24, count=5, seed=3)
    place = next((top, left) for top in range(17) for left in range(27)
                 if (PICTURES[0][top : top + 24, left : left + 24] == parts[0]).all())  # fmt: skip
    assert (other[0] == PICTURES[1][place[0] : place[0] + 24, place[1] : place[1] + 24]).all()
    assert cut(PICTURES[0], crop=40, count=1, seed=0)[0].shape == (40, 40, 3)


@pytest.fixture
def clip_folder(tmp_path):
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    from tests.hosts.toys import tokenizer

    words = tokenizer()
    text = {"vocab_size": len(words), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "eos_token_id": len(words) - 1, "bos_token_id": len(words) - 2}  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 16}  # fmt: skip
    torch.manual_seed(0)
    net = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    net.visual_projection.weight.data *= -1  # else every cosine is below 0
    net.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_clip_from_a_folder_scores_a_picture_and_its_prompt(clip_folder):
    found = extractors.clip(str(clip_folder))
    prompts = ("a teapot", "a red owl on the moon", "nothing", "an emoji of a cat")
    scores = {found.score(picture, prompt) for picture in PICTURES for prompt in prompts}
    assert min(scores) >= 0 and 0 < max(scores) <= 100 and len(scores) > 3
    (clip_folder / "model.safetensors").write_bytes(b"none")
    with pytest.raises(UsageError, match="cannot be loaded"):
        extractors.clip(str(clip_folder))


@pytest.mark.slow
def test_clip_cuts_a_long_prompt_where_the_tokenizer_tells_no_limit(clip_folder):
    file = clip_folder / "tokenizer_config.json"
    settings = {key: value for key, value in json.loads(file.read_text()).items() if key != "model_max_length"}
    file.write_text(json.dumps(settings))
    assert extractors.clip(str(clip_folder)).score(PICTURES[0], "a teapot " * 90) >= 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ("bert", "its model_type is 'bert', and 0 weights"),
        ("lacking", "and 1 weights are"),
        ("shape", "cannot be load"),
    ],
)
def test_clip_is_never_scored_with_weights_of_chance(clip_folder, broken, sentence):
    from safetensors.torch import load_file, save_file

    file, config = clip_folder / "model.safetensors", clip_folder / "config.json"
    if broken == "bert":
        config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "bert"}))
    else:
        weights = load_file(file)
        moved = weights.pop("text_projection.weight")
        if broken == "shape":
            weights["text_projection.weight"] = moved[:4].clone()
        save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=sentence):
        extractors.clip(str(clip_folder))
