"""The recipe on a host of a few lines: where each method begins, what it is given, and what it returns."""

from contextlib import contextmanager

import pytest
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d, interpolate

from fam_ext import hires, recipe
from fam_ext.core.config import FamConfig
from fam_ext.core.guide import GuideReport, seeded_noise
from fam_ext.core.schedule import NoiseLevel
from fam_ext.errors import NonFiniteLatentError, UsageError
from fam_ext.methods.base import Method, Pass, Stage
from fam_ext.methods.capabilities import STANDALONE
from fam_ext.methods.catalog import METHODS, Entry
from fam_ext.options.table import CONFIG_FIELDS
from fam_ext.samplers import noise

STEPS = 10
PICTURE = Image.radial_gradient("L").convert("RGB").resize((64, 64))
NOISE = Image.effect_noise((64, 64), 60).convert("RGB")
SIZE = (128, 96)


class Straight:
    """A sampler of ten equal steps in rho."""

    def __init__(self, start):
        rhos = [step / STEPS for step in range(STEPS, 0, -1)]
        self.levels = [NoiseLevel(1000 * rho, 1 - rho, rho) for rho in rhos if rho <= start]
        self.begins = None
        self.cfg_share, self.wants_both = 1.0, False

    def run(self, latent, model, *, modify, step, cancelled):
        self.begins = latent
        for number, level in enumerate(self.levels):
            latent = modify(latent, level)
            latent = latent * 0.9 + 0.1 * model(latent, level)
            step(number + 1, len(self.levels))
        return latent


class Small:
    """A host without a network: latents are pixels at an eighth of the size."""

    name, device, latent_channels, num_train_timesteps, native_side, samplers = "small", "cpu", 3, 1000, 64, ()
    gives, prediction, is_sdxl = STANDALONE, "epsilon", False

    def encode(self, images, *, tile=None):
        return avg_pool2d(images, 8)

    def decode(self, latents, *, tile=None):
        return interpolate(latents, scale_factor=8).clamp(0, 1)

    def sampler(self, name, schedule, steps, *, seeds, start=1.0, spacing=None):
        self.last = Straight(start)
        return self.last

    @contextmanager
    def model(self, prompts, *, size, cfg_scale, steered=None, both=False, low_memory=False):
        self.steered = steered
        yield lambda latent, level: latent.mean((-2, -1), keepdim=True).expand_as(latent)


def begun(method, **config):
    """Return the host after a pass, with the noise that the pass is drawn from."""
    host = Small()
    sampling = hires.Sampling(seed=3)
    done = hires.upscale(host, PICTURE, size=SIZE, sampling=sampling, config=FamConfig(**config), method=method)
    assert done.image.size == (96, 128) and done.method == method and done.steps == len(host.last.levels)
    return host, seeded_noise((3, 16, 12), [3], salt=hires.TARGET_SALT)


@pytest.mark.parametrize("start", [1.0, 0.7, 0.3])
def test_direct_begins_from_pure_noise_and_runs_every_step_whatever_the_start(start):
    host, noise = begun("direct", start=start)
    assert len(host.last.levels) == STEPS
    assert torch.equal(host.last.begins, noise)


@pytest.mark.parametrize("method", ["fam", "direct-from-native", "skip-residual"])
@pytest.mark.parametrize(("start", "steps"), [(1.0, 10), (0.7, 7), (0.3, 3)])
def test_the_others_begin_at_the_start_from_the_diffused_reference(method, start, steps):
    host, noise = begun(method, start=start)
    assert len(host.last.levels) == steps == host.steered.pictures.steps
    level = host.last.levels[0]
    assert torch.equal(host.last.begins, level.signal * host.steered.pictures.target + level.noise * noise)


def test_only_fam_is_guided():
    assert begun("fam")[0].steered.ran().fm_calls == STEPS - 1, "all but the first, where K is 1"
    for method in ("direct", "direct-from-native", "skip-residual"):
        host, _ = begun(method)
        assert host.steered.ran() == GuideReport()


def test_a_native_run_is_recorded_at_its_levels_and_attended_to():
    host = Small()
    native = hires.generate_native(host, size=(64, 64), sampling=hires.Sampling(seed=3))
    assert len(native.record) == STEPS
    hires.upscale(host, native, size=SIZE, sampling=hires.Sampling(seed=3))
    between = NoiseLevel(520.0, 0.48, 0.52)
    _, level = host.steered.guide.native_input(between)
    assert level.timestep == pytest.approx(500.0)


def test_a_native_run_begins_from_its_own_noise_at_its_size():
    """Neither the target's noise nor that of native calls: those are drawn with other salts."""
    host = Small()
    native = hires.generate_native(host, size=(64, 96), sampling=hires.Sampling(seed=3))
    assert torch.equal(host.last.begins, seeded_noise((3, 8, 12), [3], salt=0) * host.last.levels[0].scale)
    assert native.image.size == (96, 64) and native.latent.shape == (1, 3, 8, 12)
    stages = [hires.TARGET_SALT + hires.STAGE_SALT * stage for stage in range(8)]
    assert len({hires.NATIVE_SALT, hires.REPLAY_SALT, noise.SALT, *stages}) == 11


def test_the_smallest_target_is_64_px_a_side():
    sampling = hires.Sampling(seed=3)
    done = hires.upscale(Small(), PICTURE, size=(64, 72), sampling=sampling, method="direct-from-native")
    assert done.image.size == (72, 64)
    small = PICTURE.resize((48, 48))
    with pytest.raises(UsageError, match="the target size is 64x56; choose at least 64 px a side"):
        hires.upscale(Small(), small, size=(56, 64), sampling=sampling, method="direct-from-native")


def test_a_stage_without_a_reference_asks_for_none(monkeypatch):
    monkeypatch.setattr(hires._Studio, "upscaled", lambda studio, stage: pytest.fail("it was asked"))
    host, _ = begun("direct")
    assert host.steered.pictures.target is None


# --- methods of more than one stage


class Cascade(Method):
    """Two sampled stages and one of pixels."""

    def stages(self, size, native):
        half = (size[0] // 2, size[1] // 2)
        return [Stage(half, start=0.5, upsample="latent_bilinear"), Stage(half), Stage(size, pixels=True)]

    def begin(self, stage, pictures):
        self.begun = [*getattr(self, "begun", []), pictures]
        return Doubling(pictures)

    def enlarge(self, image, stage, larger):
        return image.resize((stage.size[1], stage.size[0]))


class Doubling(Pass):
    """Counts its steps as FM would."""

    def __init__(self, pictures):
        super().__init__(pictures)
        self.report = GuideReport()

    def before_step(self, state, level):
        self.report.fm_calls += 1
        return state * 2

    def ran(self):
        return self.report


def test_stages_run_one_after_the_other_each_from_the_one_before(monkeypatch):
    method = Cascade(FamConfig())
    monkeypatch.setitem(METHODS, "cascade", Entry("cascade", "a cascade", "tests.test_recipe:nothing"))
    monkeypatch.setattr(Entry, "load", lambda entry: lambda config: method)
    steps = []
    done = hires.upscale(
        Small(),
        PICTURE,
        size=(256, 192),
        sampling=hires.Sampling(seed=3),
        method="cascade",
        callbacks=hires.Callbacks(lambda done, total: steps.append((done, total))),
    )
    first, second = method.begun
    assert done.image.size == (192, 256)
    assert done.steps == done.report.fm_calls == 15 and steps == [(step, 15) for step in range(1, 16)]
    assert first.native.shape[-2:] == (8, 8) and first.record is None
    assert torch.equal(first.target, interpolate(first.native, (16, 12), mode="bilinear"))
    assert second.native.shape[-2:] == (16, 12)
    assert not torch.equal(first.noise, second.noise), "each stage has noise of its own"
    # the salts are in every picture that was made
    assert torch.equal(second.native_noise, seeded_noise((3, 16, 12), [3], salt=2))
    assert torch.equal(first.noise, seeded_noise((3, 16, 12), [3], salt=1))
    assert torch.equal(second.noise, seeded_noise((3, 16, 12), [3], salt=hires.TARGET_SALT + hires.STAGE_SALT))


def test_every_stage_has_the_native_runs_record_and_knows_the_network(monkeypatch):
    method, host = Cascade(FamConfig()), Small()
    host.is_sdxl = True
    monkeypatch.setattr(Entry, "load", lambda entry: lambda config: method)
    native = hires.generate_native(host, size=(64, 64), sampling=hires.Sampling(seed=3))
    hires.upscale(host, native, size=(256, 192), sampling=hires.Sampling(seed=3))
    assert [pictures.record for pictures in method.begun] == [native.record] * 2
    assert all(pictures.is_sdxl for pictures in method.begun)


def test_a_method_that_needs_what_the_host_has_not_is_refused_before_anything_runs(monkeypatch):
    host = Small()
    host.gives = STANDALONE - {"sampler state"}
    host.encode = None
    with pytest.raises(UsageError, match=r"method skip-residual needs sampler state, which the host of small does not"):
        hires.upscale(host, PICTURE, size=SIZE, sampling=hires.Sampling(), method="skip-residual")


def test_one_table_says_how_a_reference_is_made():
    (choices,) = (spec.choices for spec in CONFIG_FIELDS if spec.name == "upsample")
    assert set(choices) == {*recipe.LATENT_MODES, *recipe.PIXEL_MODES}
    for mode in set(choices) - {"auto"}:
        host, _ = begun("direct-from-native", upsample=mode)
        assert host.steered.pictures.target.shape == (1, 3, 16, 12)
        if mode in recipe.LATENT_MODES:
            how = {"latent_nearest": "nearest-exact", "latent_bilinear": "bilinear", "latent_bicubic": "bicubic"}[mode]
            expected = interpolate(host.steered.pictures.native, (16, 12), mode=how)
            assert torch.allclose(host.steered.pictures.target, expected, atol=1e-6)
        else:
            # of the picture itself, not of what its latent decodes to
            resized = recipe.to_tensor([PICTURE.resize((96, 128), recipe.PIXEL_MODES[mode])])
            assert torch.allclose(host.steered.pictures.target, host.encode(resized), atol=1e-6)


def test_a_stage_of_pixels_is_enlarged_by_the_host_and_sharpened():
    class Pixels(Method):
        def stages(self, size, native):
            return [Stage(size, pixels=True, sharpen=self.percent)]

    def made(percent):
        method = Pixels(FamConfig())
        method.percent = percent
        studio = hires._Studio(Small(), hires.Sampling(), tile=None, low_memory=False, callbacks=hires.Callbacks())
        (image,) = recipe.enlarge(studio, method, recipe.Source([edge]), size=SIZE).made.images
        return image

    edge = Image.new("RGB", (64, 64), (100, 100, 100))
    edge.paste((150, 150, 150), (32, 0, 64, 64))
    soft, sharp = made(0), made(100)
    assert soft.size == sharp.size == (96, 128)
    assert soft.getpixel((5, 60)) == sharp.getpixel((5, 60)) == (100, 100, 100)
    (low, high), (lower, higher) = soft.getextrema()[0], sharp.getextrema()[0]
    assert lower < low - 3 and higher > high + 3, "an edge has more contrast"
    assert soft.getpixel((51, 60)) == sharp.getpixel((51, 60)), "3 px beside it nothing changes"


@pytest.mark.parametrize(
    ("method", "encoded"), [("fam", 1), ("tiled", 1), ("upscaler+img2img", 1), ("diffusehigh", 1), ("upscaler", 0)]
)
def test_no_larger_picture_is_encoded_twice(method, encoded, monkeypatch):
    host, seen = Small(), []
    usual = host.encode
    monkeypatch.setattr(host, "encode", lambda image, **more: (seen.append(image.shape), usual(image, **more))[1])
    hires.upscale(host, NOISE, size=SIZE, sampling=hires.Sampling(), method=method)
    assert seen == [(1, 3, 64, 64)] + [(1, 3, *SIZE)] * encoded


@pytest.mark.parametrize(
    ("upsample", "has_latent", "encoded", "asked"),
    [
        *(("auto", False, 2, 1), ("pixel_bicubic", False, 1, 0), ("latent_bicubic", False, 1, 0)),
        *(("pixel_bicubic", True, 1, 0), ("latent_bicubic", True, 0, 0)),  # a latent is more than its pixels
    ],
)
def test_at_the_native_size_a_picture_is_encoded_again_where_that_changes_it(upsample, has_latent, encoded, asked):
    class Noting(hires._Studio):
        def encode(self, images):
            seen.append("encoded")
            return super().encode(images)

    def larger(image, size):
        seen.append("asked")
        return image.resize(size[::-1])

    host, seen = Small(), []
    source = recipe.Source([NOISE], torch.zeros(1, 3, 8, 8) if has_latent else None)
    more = {"tile": None, "low_memory": False, "callbacks": hires.Callbacks(), "larger": larger}
    method = Method(FamConfig(upsample=upsample))
    recipe.enlarge(Noting(host, hires.Sampling(), **more), method, source, size=(64, 64))
    assert (seen.count("encoded"), seen.count("asked")) == (encoded, asked)


def test_a_picture_serves_a_whole_batch():
    class Batch(hires._Studio):
        def noise(self, size, stage):
            return super().noise(size, stage).repeat(3, 1, 1, 1)

    host = Small()
    studio = Batch(host, hires.Sampling(), tile=None, low_memory=False, callbacks=hires.Callbacks())
    made = recipe.enlarge(studio, Method(FamConfig()), recipe.Source([PICTURE]), size=SIZE)
    pictures = host.steered.pictures
    assert made.made.latent.shape == (3, 3, 16, 12) == pictures.target.shape
    assert pictures.native.shape == (3, 3, 8, 8)


def test_pictures_and_pixels_are_one_another_and_what_is_out_of_range_is_cut():
    made = recipe.to_images(recipe.to_tensor([PICTURE, PICTURE.rotate(90)]))
    assert [picture.tobytes() for picture in made] == [PICTURE.tobytes(), PICTURE.rotate(90).tobytes()]
    (picture,) = recipe.to_images(torch.tensor([-0.5, 0.0, 0.5, 1.5]).expand(1, 3, 1, 4))
    assert [picture.getpixel((x, 0))[0] for x in range(4)] == [0, 0, 128, 255]


class Finishing(Pass):
    """Gives what the sampler gave, and one more."""

    def finish(self, latent):
        return latent + 1


def test_a_pass_finishes_what_the_sampler_gave(monkeypatch):
    def made(steered):
        monkeypatch.setattr(Method, "begin", lambda method, stage, pictures: steered(pictures))
        host = Small()
        studio = hires._Studio(host, hires.Sampling(), tile=None, low_memory=False, callbacks=hires.Callbacks())
        return recipe.enlarge(studio, Method(FamConfig()), recipe.Source([PICTURE]), size=SIZE).made.latent

    plain = made(Pass)
    assert torch.equal(made(Finishing), plain + 1)


@pytest.mark.parametrize("method", ["freescale", "diffusehigh"])
@pytest.mark.parametrize("fault", [torch.nan, 0.0])
def test_an_autoencoder_that_overflows_between_two_stages_ends_the_picture(method, fault):
    class Overflowing(Small):
        decoded = 0

        def decode(self, latents, *, tile=None):
            self.decoded += 1
            return super().decode(latents) if self.decoded > 1 else super().decode(latents) * 0 + fault

    host = Overflowing()
    with pytest.raises(NonFiniteLatentError, match="so the VAE overflowed; use --dtype float32"):
        hires.upscale(host, NOISE, size=(192, 192), sampling=hires.Sampling(), method=method)
    assert host.decoded == 1


def test_auto_is_bicubic_until_the_user_chose_a_network():
    def target(larger):
        host = Small()
        hires.upscale(host, NOISE, size=SIZE, sampling=hires.Sampling(), method="direct-from-native", larger=larger)
        return host.steered.pictures.target

    size = SIZE[::-1]
    host = Small()
    for larger, wanted in (
        (None, NOISE.resize(size, Image.Resampling.BICUBIC)),
        (lambda image, size: Image.new("RGB", size[::-1], "red"), Image.new("RGB", size, "red")),
    ):
        assert torch.equal(target(larger), host.encode(recipe.to_tensor([wanted])))
