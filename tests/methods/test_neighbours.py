"""What defines each neighbour: the case in which it is plain sampling, and what tells it from that."""

import dataclasses
import math

import pytest
import torch
from PIL import Image

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import seeded_noise
from fam_ext.core.schedule import NoiseLevel
from fam_ext.methods.accdiffusion import AccDiffusion, covered, permuted, shuffle
from fam_ext.methods.base import Condition, Method, Pictures
from fam_ext.methods.catalog import METHODS
from fam_ext.methods.demofusion import DemoFusion, blurred, with_moments_of
from fam_ext.methods.diffusehigh import DiffuseHigh, clean_of, low_band, output_of
from fam_ext.methods.fouriscale import FouriScale, low_passed
from fam_ext.methods.freescale import FreeScale
from fam_ext.methods.hidiffusion import HiDiffusion, in_windows, out_of_windows
from fam_ext.methods.multidiffusion import MultiDiffusion
from fam_ext.methods.scalecrafter import ScaleCrafter
from fam_ext.methods.upscaler import Tiled, Upscaler, UpscalerImg2img
from fam_ext.methods.views import dilated, jitter, tiles, windows

LEVEL = NoiseLevel(500.0, 0.6, 0.8)
CONDITION = Condition(lambda: torch.zeros(2, dtype=torch.int64), find_uncond=lambda: torch.tensor([True, False]))
SIZES = [((16, 16), (8, 8)), ((24, 24), (8, 8)), ((32, 32), (8, 8)), ((16, 32), (8, 8)), ((19, 13), (8, 12))]


def begun(method, size=(16, 16), native=(8, 8)):
    """Return the method's last pass from `native` to `size`, in latent pixels."""
    stage = method.stages((8 * size[0], 8 * size[1]), (8 * native[0], 8 * native[1]))[-1]
    target = None if stage.upsample is None else seeded_noise((4, *size), [2])
    pictures = Pictures(seeded_noise((4, *native), [1]), target, seeded_noise((4, *size), [3]), None, steps=10)
    return method.begin(stage, pictures)


class Network:
    """Says of a latent its mean over the picture plus the latent; keeps the sizes it was given."""

    def __init__(self):
        self.sizes = []

    def __call__(self, latent, level, condition, *, phase="target"):
        self.sizes.append(tuple(latent.shape[-2:]))
        return latent + latent.mean(dim=(-2, -1), keepdim=True)


@pytest.mark.parametrize(("size", "window"), SIZES)
@pytest.mark.parametrize("stride", [(1, 1), (3, 5), (8, 8)])
@pytest.mark.parametrize("shift", [(0, 0), (2, -3), (-1, 7)])
def test_windows_cover_a_latent_and_stay_in_it(size, window, stride, shift):
    views = windows(size, window, stride, shift=shift)
    count = torch.zeros(size)
    for rows, columns in views:
        assert 0 <= rows.start < rows.stop <= size[0] and 0 <= columns.start < columns.stop <= size[1]
        count[rows, columns] += 1
    assert count.min() >= 1
    assert len({(rows.start, columns.start) for rows, columns in views}) == len(views)


def test_windows_stand_a_stride_apart():
    starts = sorted({rows.start for rows, _ in windows((16, 8), (8, 8), (4, 4))})
    assert starts == [0, 4, 8]
    assert sorted({rows.start for rows, _ in windows((16, 8), (8, 8), (4, 4), shift=(1, 0))}) == [0, 1, 5, 8]


@pytest.mark.parametrize(("size", "window"), SIZES)
def test_tiles_keep_each_pixel_once_and_give_the_network_at_most_a_window(size, window):
    kept = torch.zeros(size)
    for (rows, columns), (inside, inside_columns) in tiles(size, window, (1, 2)):
        kept[inside, inside_columns] += 1
        assert rows.start <= inside.start and inside.stop <= rows.stop
        assert rows.stop - rows.start <= window[0] and columns.stop - columns.start <= window[1]
        for given, inner, side, overlap in ((rows, inside, size[0], 1), (columns, inside_columns, size[1], 2)):
            assert (given.start, given.stop) == (max(0, inner.start - overlap), min(side, inner.stop + overlap))
    assert torch.equal(kept, torch.ones(size))


def test_a_shift_is_the_levels_own_and_within_bounds():
    shifts = [jitter(NoiseLevel(float(t), 0.6, 0.8), (2, 3)) for t in range(0, 1000, 20)]
    assert shifts == [jitter(NoiseLevel(float(t), 0.6, 0.8), (2, 3)) for t in range(0, 1000, 20)]
    assert {down for down, _ in shifts} == set(range(-2, 3)) and {right for _, right in shifts} == set(range(-3, 4))


def test_random_numbers_of_others_are_not_drawn():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    jitter(LEVEL, (2, 3))
    assert torch.equal(torch.rand(1), expected)


# --- MultiDiffusion


def test_multidiffusion_with_one_view_is_plain():
    network, latent = Network(), seeded_noise((4, 8, 8), [5, 6])
    steered = begun(MultiDiffusion(FamConfig()), size=(8, 8))
    assert torch.equal(steered.around_model(network, latent, LEVEL, CONDITION), Network()(latent, LEVEL, CONDITION))
    assert network.sizes == [(8, 8)]
    assert torch.equal(steered.initial(LEVEL), steered.pictures.noise * LEVEL.scale), "from pure noise"


def test_multidiffusion_averages_where_windows_overlap():
    latent = torch.zeros(1, 1, 16, 8)
    latent[..., 8:, :] = 1.0
    steered, network = begun(MultiDiffusion(FamConfig(), stride=0.5), size=(16, 8)), Network()
    out = steered.around_model(network, latent, LEVEL, CONDITION)
    # windows at rows 0, 4, 8 have the means 0, 0.5, 1
    rows = [0.0] * 4 + [0.25] * 4 + [1 + 0.75] * 4 + [2.0] * 4
    assert torch.allclose(out[0, 0, :, 0], torch.tensor(rows))
    assert network.sizes == [(8, 8)] * 3


def test_multidiffusions_views_are_the_papers():
    network = Network()
    begun(MultiDiffusion(FamConfig()), size=(16, 16)).around_model(network, torch.zeros(1, 4, 16, 16), LEVEL, CONDITION)
    assert len(network.sizes) == 9**2


# --- DemoFusion


def test_demofusion_with_its_parts_off_is_plain():
    method = DemoFusion(FamConfig(), dilation=math.inf, stride=1.0)
    latent = seeded_noise((4, 8, 8), [5, 6])
    out = begun(method, size=(8, 8)).around_model(Network(), latent, LEVEL, CONDITION)
    assert torch.allclose(out, Network()(latent, LEVEL, CONDITION))


def test_demofusion_at_pure_noise_is_what_the_dilated_samples_say_and_at_the_end_what_the_windows_do():
    latent = seeded_noise((4, 16, 16), [5])
    steered = begun(DemoFusion(FamConfig()))
    pure, clean = NoiseLevel(1000.0, 0.07, 0.998), NoiseLevel(0.0, 1.0, 0.03)
    smooth = with_moments_of(latent, blurred(latent, 3, 1.0))
    at_noise = steered.around_model(Network(), latent, pure, CONDITION)
    assert torch.allclose(at_noise, dilated(Network(), smooth, pure, CONDITION, 2), atol=1e-5)
    network = Network()
    at_end = steered.around_model(network, latent, clean, CONDITION)
    views = windows((16, 16), (8, 8), (4, 4), shift=jitter(clean, (1, 1)))
    assert network.sizes == [(8, 8)] * (len(views) + 4)
    only_windows = torch.zeros_like(latent)
    count = torch.zeros_like(latent)
    for rows, columns in views:
        only_windows[..., rows, columns] += Network()(latent[..., rows, columns], clean, CONDITION)
        count[..., rows, columns] += 1
    assert torch.allclose(at_end, only_windows / count, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        ((128, 128), [(128, 128)]),
        ((256, 256), [(128, 128), (192, 192), (256, 256)]),
        ((128, 256), [(64, 128), (96, 192), (128, 256)]),
        ((96, 96), [(96, 96)]),
        ((160, 160), [(128, 128), (160, 160)]),
    ],
)
def test_demofusion_has_a_phase_for_each_multiple(size, sizes):
    assert [stage.size for stage in DemoFusion(FamConfig()).stages(size, (64, 64))] == sizes


def test_demofusion_pulls_toward_the_reference_and_keeps_the_natives_moments():
    steered = begun(DemoFusion(FamConfig()))
    pictures = steered.pictures
    pure = NoiseLevel(1000.0, 0.07, 0.998)
    state = seeded_noise((4, 16, 16), [9])
    assert torch.allclose(steered.before_step(state, pure), pure.diffused(pictures.target, pictures.noise), atol=1e-6)
    finished = steered.finish(3 * state + 5)
    for moment in (torch.mean, torch.std):
        assert moment(finished) == pytest.approx(float(moment(pictures.native)), abs=1e-4)


def test_a_blur_keeps_what_is_flat_and_has_the_spread_that_was_asked():
    flat = torch.full((1, 2, 9, 9), 3.0)
    assert torch.allclose(blurred(flat, 5, 1.3), flat)
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1.0
    made = blurred(point, 31, 2.5)[0, 0].sum(0)
    at = torch.arange(41.0) - 20
    assert float((made * at.square()).sum()) == pytest.approx(2.5**2, rel=0.01)


def test_dilated_samples_fall_back_into_their_places():
    latent = seeded_noise((4, 15, 10), [5])
    sizes = []

    def call(latent, level, condition, *, phase="target"):
        sizes.append(tuple(latent.shape[-2:]))
        return 2 * latent

    assert torch.equal(dilated(call, latent, LEVEL, CONDITION, 3), 2 * latent)
    assert len(sizes) == 9 and set(sizes) == {(5, 4), (5, 3)}


# --- AccDiffusion


@pytest.mark.parametrize("size", [(16, 16), (15, 10)])
def test_pixels_change_places_inside_their_cells_and_come_back(size):
    latent = torch.arange(2.0 * 3 * size[0] * size[1]).reshape(2, 3, *size)
    order = shuffle(size, 3, LEVEL)
    mixed = permuted(latent, order, 3)
    assert torch.equal(permuted(mixed, order.argsort(-1), 3), latent) and not torch.equal(mixed, latent)
    whole = [side // 3 * 3 for side in size]
    assert torch.equal(mixed[..., whole[0] :, :], latent[..., whole[0] :, :]), "what is left at a border stays"
    cell = [{*latents[0, 0, 3:6, 6:9].flatten().tolist()} for latents in (mixed, latent)]
    assert cell[0] == cell[1]
    assert torch.equal(order, shuffle(size, 3, LEVEL)) and not torch.equal(order, shuffle(size, 3, at(0.3)))


def test_accdiffusions_samples_are_denoised_mixed_and_put_back():
    steered, latent = begun(AccDiffusion(FamConfig())), seeded_noise((4, 16, 16), [5])
    given = []

    def call(latent, level, condition, *, phase="target"):
        given.append(latent)
        return 2 * latent

    assert torch.equal(steered.in_samples(call, latent, LEVEL, CONDITION), 2 * latent)
    plain = [latent[..., row::2, column::2] for row in range(2) for column in range(2)]
    assert all(len({float(each[0, 0, 4, 4]) for each in samples}) == 4 for samples in (given, plain))
    assert not any(torch.equal(mixed, own) for mixed, own in zip(given, plain, strict=True))


def test_accdiffusion_without_words_is_demofusion_in_its_windows():
    latent, views = seeded_noise((4, 16, 16), [5, 6]), windows((16, 16), (8, 8), (4, 4))
    outs = [
        begun(make(FamConfig())).in_windows(Network(), latent, LEVEL, CONDITION, views)
        for make in (AccDiffusion, DemoFusion)
    ]
    assert torch.equal(*outs)


def test_a_word_is_where_its_attention_is_more_than_its_mean_without_specks():
    maps = torch.zeros(2, 8, 8)
    maps[0, :, :4] = 1.0
    maps[1, 2, 2] = 9.0
    found = covered(maps)
    assert torch.equal(found[0], maps[0] > 0) and not found[1].any()


class FourWords:
    """A picture's prompt of four words, of which the third has two tokens and the last has none."""

    def __init__(self):
        self.kept = []

    def of(self, picture):
        return [[1], [2], [3, 4], []]

    def only(self, kept):
        self.kept.append({picture: set(indices) for picture, indices in kept.items()})
        return self.kept[-1]


def test_accdiffusions_windows_have_the_words_that_are_there():
    steered, words, calls = begun(AccDiffusion(FamConfig())), FourWords(), []
    q, k = torch.zeros(2, 1, 16, 3), torch.zeros(2, 1, 6, 3)
    q[..., 0] = 1.0 * (torch.arange(16) % 4 < 2)  # the left half of a 4 x 4 grid
    q[..., 1] = 1.0 * (torch.arange(16) // 4 >= 2)  # the lower half
    k[1, 0, 1, 0] = k[1, 0, 2, 1] = k[1, 0, 4, 0] = 9.0

    def call(latent, level, condition, *, phase="target"):
        calls.append((phase, tuple(latent.shape[-2:]), condition))
        if phase == "native":
            steered.watch("a", q, k, size=(4, 4), scale=None, phase=phase)
        return latent

    condition = Condition(
        lambda: torch.zeros(2, dtype=torch.int64), None, lambda: torch.tensor([True, False]), words=words
    )
    views = windows((16, 16), (8, 8), (8, 8))
    latent = seeded_noise((4, 16, 16), [5, 6])
    assert torch.equal(steered.in_windows(call, latent, LEVEL, condition, views), latent)
    assert [words.kept[index] for index in (0, 1, 3)] == [{0: {0, 2}}, {0: {2, 3}}, {0: {1}}]
    assert calls[0] == ("native", (8, 8), condition)
    assert [(size, own) for _, size, own in calls[1:]] == [((8, 8), kept) for kept in words.kept]
    steered.watch("a", q, k, size=(4, 4), scale=None, phase="target")
    assert not steered._seen


def test_accdiffusion_asks_for_its_maps_at_the_native_size_in_each_phase():
    stage = AccDiffusion(FamConfig()).stages((192, 192), (64, 64))[-1]
    latents = (seeded_noise((4, side, side), [1]) for side in (16, 24, 24))  # the picture before is the phase of 2x
    steered = AccDiffusion(FamConfig()).begin(stage, Pictures(*latents, None, steps=10))
    q, sizes = torch.ones(2, 1, 16, 3), []

    def call(latent, level, condition, *, phase="target"):
        sizes.append(tuple(latent.shape[-2:]))
        steered.watch("a", q, q[:, :, :6], size=(4, 4), scale=None, phase=phase)
        return latent

    condition = Condition(CONDITION._find_rows, None, CONDITION._find_uncond, words=FourWords())
    steered.in_windows(call, seeded_noise((4, 24, 24), [5, 6]), LEVEL, condition, windows((24, 24), (8, 8), (8, 8)))
    assert sizes == [(8, 8)] * 10


# --- after an upscaler


def test_tiled_with_one_tile_is_img2img():
    latent = seeded_noise((4, 8, 8), [5, 6])
    tiled, whole = (begun(make(FamConfig()), size=(8, 8)) for make in (Tiled, UpscalerImg2img))
    outs = [steered.around_model(Network(), latent, LEVEL, CONDITION) for steered in (tiled, whole)]
    assert torch.equal(*outs) and torch.equal(tiled.initial(LEVEL), whole.initial(LEVEL))


def test_a_tile_sees_its_neighbours_and_only_its_inside_is_kept():
    latent = torch.zeros(1, 1, 16, 8)
    latent[..., 8:, :] = 1.0
    out = begun(Tiled(FamConfig(), overlap=0.25), size=(16, 8)).around_model(Network(), latent, LEVEL, CONDITION)
    assert len(set(out[0, 0, :, 0].tolist())) > 2, "tiles across the edge have other means"
    assert torch.equal(out[..., :1].expand_as(out), out)


def test_after_an_upscaler_the_second_stage_begins_late_at_the_same_size():
    for make in (Tiled, UpscalerImg2img):
        pixels, late = make(FamConfig(start=1.0)).stages((128, 96), (64, 48))
        assert (
            pixels.pixels
            and late.start == 0.35
            and late.upsample == "pixel_lanczos"
            and pixels.size == late.size == (128, 96)
        )
    assert make(FamConfig(), denoise=0.5).stages((128, 96), (64, 48))[-1].start == 0.5
    (alone,) = Upscaler(FamConfig()).stages((128, 96), (64, 48))
    assert alone.pixels


# --- DiffuseHigh


def test_a_low_band_is_a_projection_that_keeps_what_is_flat_and_takes_what_alternates():
    latent = seeded_noise((4, 21, 32), [5])
    low = low_band(latent)
    inside = (..., slice(8, -8), slice(8, -8))  # beyond, the repeated border has its part
    assert torch.allclose(low_band(low)[inside], low[inside], atol=1e-5)
    assert torch.allclose(low_band(torch.full((1, 2, 9, 8), 3.0)), torch.tensor(3.0), atol=1e-5)
    assert low_band(wave(16))[inside].abs().max() < 1e-5
    assert torch.allclose(low_band(wave(2))[inside], wave(2)[inside], atol=0.02)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_moved_clean_latent_is_what_the_moved_output_says(kind):
    clean, noise, moved = (seeded_noise((4, 8, 8), [seed]) for seed in (1, 2, 3))
    shares = {"signal": 0.6, "noise": 0.8, "kind": kind}
    latent = 0.6 * clean + 0.8 * noise
    output = {"epsilon": noise, "v_prediction": 0.6 * noise - 0.8 * clean, "sample": clean}[kind]
    assert torch.allclose(clean_of(latent, output, **shares), clean, atol=1e-5)
    assert torch.allclose(clean_of(latent, output_of(output, moved, **shares), **shares), clean + moved, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_diffusehigh_gives_the_predicted_picture_the_references_low_band(scale):
    steered, latent = begun(DiffuseHigh(FamConfig()), size=(24, 24)), seeded_noise((4, 24, 24), [5, 6])
    level = NoiseLevel(250.0, 0.8 * scale, 0.6 * scale)
    out = steered.around_model(Network(), latent, level, CONDITION)
    clean, plain = (
        clean_of(latent, said, signal=0.8, noise=0.6, kind="epsilon")
        for said in (out, Network()(latent, level, CONDITION))
    )
    guide = steered.pictures.target.expand(2, -1, -1, -1)
    inside = (..., slice(8, -8), slice(8, -8))
    assert torch.allclose(low_band(clean)[inside], low_band(guide)[inside], atol=1e-4)
    assert torch.allclose((clean - low_band(clean))[inside], (plain - low_band(plain))[inside], atol=1e-4)
    late = NoiseLevel(200.0, 0.8, 0.6)
    assert torch.equal(steered.around_model(Network(), latent, late, CONDITION), Network()(latent, late, CONDITION)), (
        "plain from there on"
    )


def test_diffusehigh_enlarges_and_sharpens_and_begins_late_in_each_phase():
    method = DiffuseHigh(FamConfig())
    stages = method.stages((192, 192), (64, 64))
    assert [(stage.size, stage.pixels, stage.start) for stage in stages] == [
        *(((128, 128), True, 1.0), ((128, 128), False, 0.3), ((192, 192), True, 1.0), ((192, 192), False, 0.3))
    ]
    picture = Image.new("RGB", (64, 64), (100, 100, 100))
    picture.paste((150, 150, 150), (32, 0, 64, 64))
    made = method.enlarge(picture, stages[0], lambda image, size: image.resize(size[::-1], Image.Resampling.BILINEAR))
    assert made.size == (128, 128) and made.getpixel((10, 60)) == (100, 100, 100)
    (low, high), *_ = made.getextrema()
    assert low < 100 and high > 150, "an edge has more contrast"


# --- FreeScale


def test_freescale_at_the_native_size_attends_and_convolves_as_usual():
    steered, kernel = begun(FreeScale(FamConfig()), size=(8, 8)), Dilating()
    phases_of(steered, 0.9)
    q, k, v = (seeded_noise((2, 24, 3), [seed]) for seed in (1, 2, 3))
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert torch.allclose(steered.attend("a", q, k, v, size=(4, 6), scale=None, phase="target"), plain, atol=1e-6)
    steered.convolve("a", seeded_noise((3, 6, 6), [1]), kernel, size=(6, 6), phase="target")
    assert kernel.runs == [((6, 6), (1, 1), None)]


def test_freescale_takes_the_layout_of_windows_and_the_detail_of_the_whole():
    steered, grid = begun(FreeScale(FamConfig()), size=(16, 16)), (8, 8)
    phases_of(steered, 0.9)
    q, k, v = torch.zeros(1, 1, 64, 2), torch.zeros(1, 1, 64, 2), torch.zeros(1, 1, 8, 8, 2)
    v[0, 0, :, 4:] = 1.0  # zero queries: attention is the mean of what is seen
    out = steered.attend("a", q, k, v.flatten(2, 3), size=grid, scale=None, phase="target").unflatten(2, grid)
    assert out[0, 0, 4, 0, 0] < 0.2 and out[0, 0, 4, 7, 0] > 0.8, "a window sees its own side"
    for phase in ("native", "off"):
        assert steered.attend("a", q, k, v.flatten(2, 3), size=grid, scale=None, phase=phase) is None


def test_freescale_dilates_until_its_end_and_pulls_by_its_own_power():
    steered, kernel = begun(FreeScale(FamConfig()), size=(16, 32)), Dilating()
    feature_map = seeded_noise((3, 6, 6), [1])
    for rho in (0.31, 0.3):
        phases_of(steered, rho)
        steered.convolve("a", feature_map, kernel, size=(6, 6), phase="target")
    assert kernel.runs == [((6, 6), (2, 4), None)]
    state, level = seeded_noise((4, 16, 32), [9]), at(0.5)
    reference = level.diffused(steered.pictures.target, steered.pictures.noise)
    assert torch.allclose(steered.before_step(state, level), state.lerp(reference, 0.25), atol=1e-6)
    assert [stage.size for stage in steered.method.stages((192, 192), (64, 64))] == [(128, 128), (192, 192)]


# --- FAM with one dial fixed


def test_what_a_method_fixes_is_in_its_own_dials():
    config = FamConfig(cutoff=0.25, attention=0.3)
    assert METHODS["fam-constant"].load()(config).config == config.replace(reference="constant")
    assert METHODS["fam-swap"].load()(config).config == config.replace(attention=1.0)
    assert not METHODS["fam-swap"].knobs.count("attention") and "reference" in METHODS["fam-swap"].knobs


def test_the_plain_method_finishes_with_what_the_sampler_gave():
    latent = seeded_noise((4, 8, 8), [5])
    steered = begun(Method(FamConfig()), size=(8, 8))
    assert steered.finish(latent) is latent


# --- inside the network


class Dilating:
    """A kernel that notes how it was run."""

    def __init__(self):
        self.runs = []

    def __call__(self, feature_map, *, weight=None, dilation=(1, 1), stride=None):
        self.runs.append((tuple(feature_map.shape[-2:]), dilation, stride))
        step = stride or (1, 1)
        return feature_map[..., :: step[0], :: step[1]]


def at(rho):
    return NoiseLevel(1000.0 * rho, 0.6, 0.8)


def phases_of(steered, rho):
    phases = []

    def call(latent, level, condition, *, phase="target"):
        phases.append(phase)
        return latent

    steered.around_model(call, torch.zeros(1, 4, *steered.pictures.noise.shape[-2:]), at(rho), CONDITION)
    return phases


@pytest.mark.parametrize(
    ("size", "runs"),
    [
        ((8, 8), [((6, 6), (1, 1), None)]),
        ((16, 16), [((6, 6), (2, 2), None)]),
        ((16, 32), [((6, 6), (2, 4), None)]),
        ((12, 16), [((8, 6), (2, 2), None)]),
    ],
)
def test_scalecrafter_dilates_by_the_scale_and_enlarges_what_it_cannot(size, runs):
    kernel, steered = Dilating(), begun(ScaleCrafter(FamConfig()), size=size)
    feature_map = seeded_noise((3, 6, 6), [1])
    out = steered.convolve("mid_block.resnets.0.conv1", feature_map, kernel, size=(6, 6), phase="target")
    assert kernel.runs == runs and out.shape == feature_map.shape
    assert steered.convolve("mid_block.resnets.0.conv1", feature_map, kernel, size=(6, 6), phase="native") is None


def test_scalecrafter_ends_on_the_way():
    steered = begun(ScaleCrafter(FamConfig()))
    assert phases_of(steered, 0.9) == ["target"] and phases_of(steered, 0.4) == ["off"]


# --- FouriScale


def wave(cycles, size=(32, 32)):
    """Return (1, 1, H, W): so many cycles over the width."""
    line = torch.cos(2 * math.pi * cycles * torch.arange(size[1]) / size[1])
    return line.expand(1, 1, *size)


@pytest.mark.parametrize(("cycles", "left"), [(0, 1.0), (8, 1.0), (9, 0.5), (10, 0.25), (14, 0.25)])
def test_a_low_pass_keeps_the_native_band_and_leaves_its_floor_of_the_rest(cycles, left):
    made = low_passed(wave(cycles), 2.0, ramp=1 / 8, floor=0.25)  # 16 cycles are the whole band
    assert torch.allclose(made, left * wave(cycles), atol=1e-5)
    assert torch.allclose(made.mT, low_passed(wave(cycles).mT, 2.0, ramp=1 / 8, floor=0.25), atol=1e-5), (
        "both axes alike"
    )


def test_a_low_pass_of_the_whole_band_changes_no_bit():
    feature_map = seeded_noise((3, 7, 6), [1])
    assert torch.equal(low_passed(feature_map, 1.0, ramp=1 / 8, floor=0.0), feature_map)


def test_fouriscale_at_the_native_size_is_plain():
    steered = begun(FouriScale(FamConfig()), size=(8, 8))
    assert [phases_of(steered, rho) for rho in (1.0, 0.7, 0.1)] == [["off"]] * 3


def test_fouriscales_dilation_falls_from_the_scale_to_one():
    steered = begun(FouriScale(FamConfig()), size=(24, 24))
    assert [steered.dilation(at(rho)) for rho in (1.0, 0.6, 0.45, 0.3, 0.1)] == pytest.approx([3, 3, 2, 1, 1])
    assert phases_of(steered, 0.5) == ["target"] * 2 and phases_of(steered, 0.3) == ["off"]


@pytest.mark.parametrize(
    ("size", "given"), [((16, 16), (6, 6)), ((16, 32), (12, 6)), ((12, 16), (8, 6)), ((24, 24), (6, 6))]
)
def test_fouriscale_pads_to_the_native_aspect_and_crops_again(size, given):
    kernel, steered = Dilating(), begun(FouriScale(FamConfig()), size=size)
    feature_map = seeded_noise((3, 6, 6), [1])
    phases_of(steered, 0.9)
    steered.branch = dataclasses.replace(steered.branch, dilation=float(math.ceil(max(steered.scales))))
    out = steered.convolve("mid_block.resnets.0.conv1", feature_map, kernel, size=(6, 6), phase="target")
    whole = math.ceil(max(size) / 8)
    assert kernel.runs == [(given, (whole, whole), None)] and out.shape == feature_map.shape
    assert steered.convolve("mid_block.resnets.0.conv1", feature_map, kernel, size=(6, 6), phase="native") is None


def test_fouriscale_guides_rows_with_words_by_its_milder_run_under_the_first_runs_maps():
    steered, branches, attended = begun(FouriScale(FamConfig(), leaves=0.5)), [], []
    q, k, v = (seeded_noise((1, 4, 3), [seed, seed + 9]) for seed in (1, 2, 3))

    def call(latent, level, condition, *, phase="target"):
        branches.append((steered.branch.dilation, steered.branch.floor))
        run = len(branches)
        attended.append(steered.attend("a", run * q, run * k, v, size=(2, 2), scale=None, phase=phase))
        return latent + run

    latent = torch.zeros(2, 4, 16, 16)
    out = steered.around_model(call, latent, at(0.9), CONDITION)
    assert branches == [(2.0, 0.0), (2 / 1.5, 0.5)]
    assert torch.equal(out[0], latent[0] + 1) and torch.equal(out[1], latent[0] + 2)
    assert attended[0] is None, "as usual"
    assert torch.equal(attended[1], torch.nn.functional.scaled_dot_product_attention(q, k, v))
    assert steered.attend("a", q, k, v, size=(2, 2), scale=None, phase="native") is None


# --- HiDiffusion


def acting(steered, rho):
    """Return which of HiDiffusion's two places act at `rho`."""
    phases_of(steered, rho)
    feature_map, kernel = torch.zeros(1, 3, 8, 8), Dilating()
    strided = steered.stride("a", feature_map, kernel, size=(4, 4), phase="target")
    pooled = steered.pool("b", feature_map, size=(8, 8), phase="target")
    assert (strided is None) == (steered.unstride("c", feature_map, kernel, size=(16, 16), phase="target") is None)
    assert (pooled is None) == (steered.unpool("d", feature_map, size=(16, 16), phase="target") is None)
    for phase in ("native", "off"):
        assert steered.stride("a", feature_map, kernel, size=(4, 4), phase=phase) is None
        assert steered.pool("b", feature_map, size=(8, 8), phase=phase) is None
    if strided is not None:
        assert kernel.runs[0] == ((8, 8), (2, 2), (4, 4)) and strided.shape[-1] == 2
        assert kernel.runs[1] == ((16, 16), (1, 1), None)
    if pooled is not None:
        assert pooled.shape[-1] == 4
    return "strided" * (strided is not None) + "pooled" * (pooled is not None)


def test_hidiffusion_runs_smaller_inside_while_it_begins():
    double, triple = (begun(HiDiffusion(FamConfig()), size=size) for size in ((16, 16), (24, 24)))
    assert [acting(double, rho) for rho in (0.95, 0.8, 0.61, 0.59, 0.1)] == ["strided", "pooled", "pooled", "", ""]
    assert [acting(triple, rho) for rho in (0.95, 0.71, 0.69, 0.31, 0.29)] == [
        *("stridedpooled", "stridedpooled", "pooled", "pooled", "")
    ]


def test_hidiffusion_makes_as_large_again_what_it_pooled():
    """From 3x on the stride has halved it before, and the skip that it meets is of that size."""
    steered = begun(HiDiffusion(FamConfig()), size=(24, 24))
    phases_of(steered, 0.95)
    small = steered.pool("pooled", torch.ones(1, 2, 6, 5), size=(12, 10), phase="target")
    assert small.shape[-2:] == (3, 3)
    assert steered.unpool("unpooled", small, size=(12, 10), phase="target").shape[-2:] == (6, 5)


@pytest.mark.parametrize(("size", "is_large"), [((24, 24), True), ((16, 32), False), ((24, 16), False)])
def test_both_places_act_at_once_only_where_both_sides_are_large(size, is_large):
    assert begun(HiDiffusion(FamConfig()), size=size).is_large == is_large


def test_hidiffusion_at_the_native_size_is_plain():
    assert [bool(begun(HiDiffusion(FamConfig()), size=size).patches()) for size in ((8, 8), (6, 8), (9, 8))] == [
        *(False, False, True)
    ]
    both = begun(METHODS["hidiffusion+fam"].load()(FamConfig()), size=(8, 8))
    assert phases_of(both, 0.95) == ["native", "target"] and [each.place for each in both.patches()] == ["attention"]


@pytest.mark.parametrize("size", [(4, 6), (8, 8)])
@pytest.mark.parametrize("shift", [(0, 0), (1, 2)])
def test_windows_of_attention_come_back_to_their_places(size, shift):
    tokens = torch.arange(2.0 * 3 * size[0] * size[1] * 5).reshape(2, 3, -1, 5)
    inside = in_windows(tokens, size, shift)
    assert inside.shape == (2, 12, size[0] * size[1] // 4, 5)
    assert torch.equal(out_of_windows(inside, size, shift), tokens)


def test_a_token_sees_its_window_alone():
    """One key among zeros: where it is seen, the output is more than the values' mean."""
    steered = begun(HiDiffusion(FamConfig()))
    q = torch.ones(1, 1, 16, 2)
    k, v = torch.zeros(1, 1, 16, 2), torch.zeros(1, 1, 16, 2)
    v[0, 0, 0] = 1.0  # the picture's first pixel, of 4 x 4
    for quarters, seen in (((0, 0), {0, 1, 4, 5}), ((2, 0), {0, 1, 12, 13})):
        steered.quarters = quarters
        out = steered.attend("last", q, k, v, size=(4, 4), scale=None, phase="target")
        assert set(out[0, 0, :, 0].nonzero().flatten().tolist()) == seen
    assert steered.attend("last", q, k, v, size=(4, 4), scale=None, phase="native") is None
    odd = torch.ones(1, 1, 15, 2)
    assert steered.attend("last", odd, odd, odd, size=(3, 5), scale=None, phase="target") is None


def test_hidiffusions_windows_move_from_step_to_step():
    steered, shifts = begun(HiDiffusion(FamConfig())), set()
    for step in range(50):
        phases_of(steered, step / 50)
        shifts.add(steered.quarters)
    assert {down for down, _ in shifts} == {right for _, right in shifts} == {0, 1, 2, 3}


def test_hidiffusion_with_fam_does_both():
    steered = begun(METHODS["hidiffusion+fam"].load()(FamConfig()))
    assert phases_of(steered, 0.9) == ["native", "target"]
    assert [patch.place for patch in steered.patches()].count("attention") == 2
    assert steered.initial(LEVEL).shape == (1, 4, 16, 16) and steered.pictures.target is not None
