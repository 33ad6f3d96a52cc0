"""Convolution and feature-size patches: what a pass does in either host's network, and that nothing of it stays."""

from contextlib import contextmanager

import pytest
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d, interpolate

from fam_ext import hires
from fam_ext.core.config import FamConfig
from fam_ext.core.guide import seeded_noise
from fam_ext.core.schedule import NoiseLevel
from fam_ext.errors import AlreadyGuidedError, ConfigError
from fam_ext.hosts.layers import Grid, Kernel, Layer, MapHook, select_layers
from fam_ext.hosts.ldm import unet as ldm_unet
from fam_ext.hosts.steering import Steering
from fam_ext.methods.base import NATIVE, OFF, TARGET, Condition, Method, Pass, Patch, Pictures, Stage
from fam_ext.methods.capabilities import CONVOLUTION, FEATURE_SIZE
from fam_ext.methods.catalog import METHODS, Entry
from fam_ext.methods.fam import Fam
from fam_ext.methods.together import Together
from tests.hosts import ldm_toys, toys

LEVEL = NoiseLevel(500.0, 0.6, 0.8)
STAGE = Stage((256, 256))
CONDITION = Condition(lambda: torch.zeros(1, dtype=torch.int64))
LAYER = Layer("a layer", torch.nn.Identity(), 0)


class Stub(Method):
    """Acts at layers by `acts`: (place, pattern) -> what is asked there."""

    def __init__(self, acts, *, phases=(TARGET,)):
        super().__init__(FamConfig())
        self.acts, self.phases = acts, phases

    def begin(self, stage, pictures):
        return StubPass(pictures, self)


class StubPass(Pass):
    def __init__(self, pictures, method):
        super().__init__(pictures)
        self.method = method

    def around_model(self, call, latent, level, condition):
        return [call(latent, level, condition, phase=phase) for phase in self.method.phases][-1]

    def patches(self):
        return [Patch(place, pattern, act) for (place, pattern), act in self.method.acts.items()]


class InDiffusers:
    """A diffusers UNet with a pass in it."""

    def __init__(self, kind):
        from fam_ext.hosts.diffusers.unet import UNetHooks, unet_layers

        self.unet = {"sd15": toys.sd_unet, "sdxl": toys.sdxl_unet}[kind]().eval().requires_grad_(False)
        width = {"sd15": 32, "sdxl": 80}[kind]
        self.words = torch.randn((1, 5, width), generator=torch.Generator().manual_seed(2))
        self.added = {"text_embeds": torch.zeros(1, 48), "time_ids": torch.zeros(1, 6)} if kind == "sdxl" else None
        self.hooks, self.layers = UNetHooks(self.unet), unet_layers(self.unet)

    def plain(self, latent):
        told = {"encoder_hidden_states": self.words, "added_cond_kwargs": self.added}
        return self.unet(latent, LEVEL.timestep, **told, return_dict=False)[0]

    @contextmanager
    def steered(self, steered):
        def call(latent, level, condition, *, phase=TARGET):
            with self.hooks.steering.during(phase):
                return self.plain(latent)

        with self.hooks.running(steered):
            yield lambda latent: steered.around_model(call, latent, LEVEL, CONDITION)


class InLdm:
    """An ldm UNet with a pass in it."""

    def __init__(self, kind):
        self.unet = ldm_toys.unet(kind)
        self.words = torch.randn((1, 5, ldm_toys.CONTEXT), generator=torch.Generator().manual_seed(2))
        self.layers = ldm_unet.unet_layers(self.unet)

    def plain(self, latent):
        return self.unet(latent, torch.full((1,), LEVEL.timestep), context=self.words)

    @contextmanager
    def steered(self, steered):
        steering = Steering()
        with steering.running(steered), ldm_unet.steered_unet(self.unet, steering):

            def call(latent):
                steering.latent, steering.level = latent, LEVEL
                return self.plain(latent)

            yield call


needs_ldm = pytest.mark.skipif(not ldm_toys.HAS_LDM, reason=ldm_toys.WITHOUT)
HOSTS = [
    # diffusers takes longer to import than a unit file may run
    *(pytest.param((InDiffusers, kind), marks=pytest.mark.slow, id=f"diffusers {kind}") for kind in ("sd15", "sdxl")),
    *(pytest.param((InLdm, kind), marks=needs_ldm, id=f"ldm {kind}") for kind in ("sd15", "sdxl")),
]


@pytest.fixture(scope="module", params=HOSTS)
def host(request):
    make, kind = request.param
    return make(kind)


def begun(acts, *, side=16, phases=(TARGET,), method=None):
    """Return a pass with patches, and a latent for it."""
    latents = [seeded_noise((4, size, size), [size]) for size in (8, side, side)]
    method = method or Stub(acts, phases=phases)
    return method.begin(STAGE, Pictures(*latents, None, steps=3)), seeded_noise((4, side, side), [9])


def made(host, acts, **more):
    """Return the network's output under patches."""
    steered, latent = begun(acts, **more)
    with host.steered(steered) as call:
        return call(latent)


def state(unet):
    """Return everything that a hook could leave behind."""
    return {
        name: (dict(module.__dict__), len(module._forward_pre_hooks), len(module._forward_hooks))
        for name, module in unet.named_modules()
    }


def as_usual(site, feature_map, kernel, *, size, phase):
    return kernel(feature_map)


def test_layers_have_the_same_names_in_every_host(host):
    names = [layer.name for layer in host.layers.convolutions]
    blocks = sum(name.endswith(".conv") and "down" in name for name in names) + 1
    assert len(set(names)) == len(names) and names[0] == "conv_in" and names[-1] == "conv_out"
    assert [name for name in names if name.startswith("mid")] == [
        f"mid_block.resnets.{number}.conv{which}" for number in (0, 1) for which in (1, 2)
    ]
    expected = ["conv_in"]
    for block in range(blocks):
        expected += [f"down_blocks.{block}.resnets.{number}.conv{which}" for number in (0, 1) for which in (1, 2)]
        expected += [f"down_blocks.{block}.downsamplers.0.conv"] * (block < blocks - 1)
    expected += [name for name in names if name.startswith("mid")]
    for block in range(blocks):
        expected += [f"up_blocks.{block}.resnets.{number}.conv{which}" for number in (0, 1, 2) for which in (1, 2)]
        expected += [f"up_blocks.{block}.upsamplers.0.conv"] * (block < blocks - 1)
    assert names == [*expected, "conv_out"]
    maps = [layer.name for layer in host.layers.maps]
    layers = {name.rpartition(".conv")[0].replace("resnets", "layers") for name in names if "block" in name}
    assert set(maps) == {name for name in layers if not name.startswith("mid")} and len(set(maps)) == len(maps)


def test_a_distilled_network_without_a_middle_has_the_other_layers():
    from fam_ext.hosts.diffusers.unet import unet_layers

    networks = toys.sd_unet(), toys.sd_unet(mid_block_type=None)
    whole, without = ([layer.name for layer in unet_layers(each).convolutions] for each in networks)
    assert without == [name for name in whole if not name.startswith("mid")] != whole


@pytest.mark.parametrize("side", [16, 24])
def test_each_is_asked_once_a_call_in_order_at_its_size(host, side):
    seen = []

    def note_convolution(site, feature_map, kernel, *, size, phase):
        assert phase == TARGET and feature_map.shape[1] == kernel.weight.shape[1]
        seen.append(site)
        assert kernel(feature_map).shape[-2:] == size

    def note_map(site, feature_map, *, size, phase):
        assert phase == TARGET and feature_map.shape[-2:] == size
        seen.append(site)

    acts = {(CONVOLUTION, "*"): note_convolution, (FEATURE_SIZE, "*"): note_map}
    assert torch.equal(made(host, acts, side=side), host.plain(begun({}, side=side)[1]))
    convolutions, maps = ([layer.name for layer in layers] for layers in (host.layers.convolutions, host.layers.maps))
    assert [site for site in seen if site in convolutions] == convolutions
    assert [site for site in seen if site in maps] == maps and len(seen) == len(convolutions) + len(maps)


def test_a_convolution_as_usual_and_a_map_as_it_is_change_no_bit(host):
    acts = {(CONVOLUTION, "*"): as_usual, (FEATURE_SIZE, "*"): lambda site, feature_map, **_: feature_map.clone()}
    assert torch.equal(made(host, acts), host.plain(begun({})[1]))


def test_a_dilation_and_other_weights_act_where_they_are_asked_for_alone(host):
    def dilated(site, feature_map, kernel, *, size, phase):
        return kernel(feature_map, dilation=(2, 2))

    def wide(site, feature_map, kernel, *, size, phase):
        # the same weights in the middle of a larger kernel
        return kernel(feature_map, weight=torch.nn.functional.pad(kernel.weight, (1, 1, 1, 1)))

    def silent(site, feature_map, kernel, *, size, phase):
        return kernel(feature_map, weight=kernel.weight * 0)

    plain = host.plain(begun({})[1])
    outputs = [made(host, {(CONVOLUTION, pattern): dilated}) for pattern in ("mid_block.*", "up_blocks.0.*")]
    for output in outputs:
        assert output.shape == plain.shape and not torch.allclose(output, plain, atol=1e-4)
    assert not torch.allclose(*outputs, atol=1e-4)
    assert torch.allclose(made(host, {(CONVOLUTION, "*resnets*"): wide}), plain, atol=1e-4)
    end = host.layers.convolutions[-1].module.bias[:, None, None]
    assert torch.allclose(made(host, {(CONVOLUTION, "conv_out"): silent}), end.expand_as(plain))


@pytest.mark.parametrize("side", [16, 24])
def test_feature_maps_between_two_layers_are_smaller(host, side):
    """HiDiffusion's two places: from a layer of a down block to one of the up block on its level, and beyond a
    downsampler of stride 4, up again at the upsampler."""
    widths = {}
    blocks = 1 + sum(layer.name.endswith("downsamplers.0") for layer in host.layers.maps)
    up = f"up_blocks.{blocks - 2}"

    def smaller(site, feature_map, *, size, phase):
        return avg_pool2d(feature_map, 2)

    def again(site, feature_map, *, size, phase):
        assert feature_map.shape[-1] < size[-1]
        return interpolate(feature_map, size, mode="bicubic")

    def note(site, feature_map, kernel, *, size, phase):
        widths[site] = feature_map.shape[-1] / size[-1]

    def far(site, feature_map, kernel, *, size, phase):
        return kernel(feature_map, dilation=(2, 2), stride=(4, 4))

    def near(site, feature_map, kernel, *, size, phase):
        return kernel(interpolate(feature_map, size))

    plain, noted = host.plain(begun({}, side=side)[1]), {(CONVOLUTION, "*resnets*"): note}
    pooled = {(FEATURE_SIZE, "down_blocks.1.layers.0"): smaller, (FEATURE_SIZE, f"{up}.layers.1"): again}
    strided = {(CONVOLUTION, "down_blocks.1.downsamplers.0.conv"): far}
    strided |= {(CONVOLUTION, f"up_blocks.{blocks - 3}.upsamplers.0.conv"): near}
    for acts, first in ((pooled, "down_blocks.1.resnets.1.conv1"), (strided, "down_blocks.2.resnets.0.conv1")):
        widths.clear()
        output = made(host, acts | noted, side=side)
        assert output.shape == plain.shape and not torch.allclose(output, plain, atol=1e-4)
        assert widths[first] <= 0.75 and widths["mid_block.resnets.0.conv1"] <= 1
        assert widths["down_blocks.0.resnets.0.conv1"] == widths[f"up_blocks.{blocks - 1}.resnets.2.conv2"] == 1


def test_a_sleeping_and_a_native_call_are_told_apart(host):
    phases = []

    def note(site, feature_map, kernel, *, size, phase):
        phases.append((phase, feature_map.shape[-1]))

    acts = {(CONVOLUTION, "conv_in"): note}
    made(host, acts, phases=(OFF, TARGET))
    assert phases == [(TARGET, 16)]
    phases.clear()
    both = Together(Fam(FamConfig()), Stub({(CONVOLUTION, "*"): note, (FEATURE_SIZE, "*"): note_maps(phases)}))
    assert made(host, {}, method=both).shape == (1, 4, 16, 16)
    assert (NATIVE, 8) in phases and phases[-1][0] == TARGET


def note_maps(phases):
    def note(site, feature_map, *, size, phase):
        assert feature_map.shape[-2:] == size
        phases.append((phase, feature_map.shape[-1]))

    return note


def test_nothing_stays_also_after_an_error_and_an_interrupt(host):
    before = state(host.unet)
    acts = {(CONVOLUTION, "*"): as_usual, (FEATURE_SIZE, "*"): lambda site, feature_map, **_: feature_map}
    for error in (ValueError("in the loop"), KeyboardInterrupt()):
        steered, latent = begun(acts)
        with pytest.raises(type(error)), host.steered(steered) as call:
            call(latent)
            assert state(host.unet) != before
            raise error
        assert state(host.unet) == before
    with host.steered(begun(acts)[0]), pytest.raises(AlreadyGuidedError), host.steered(begun(acts)[0]):
        pass
    assert state(host.unet) == before


def test_who_wrapped_a_layer_meanwhile_stays_and_ours_passes_through(host, caplog):
    conv_in, asked = host.layers.conv_in, []

    def note(site, feature_map, kernel, *, size, phase):
        asked.append(site)

    steered, latent = begun({(CONVOLUTION, "conv_in"): note})
    with host.steered(steered) as call:
        ours = conv_in._conv_forward
        conv_in._conv_forward = lambda *args: ours(*args)
        call(latent)
    assert asked == ["conv_in"] and "was replaced while FAM was active" in caplog.text
    host.plain(latent)
    assert asked == ["conv_in"]
    del conv_in._conv_forward


def test_a_name_that_there_is_not_and_a_layer_patched_twice_are_refused_and_leave_no_trace(host):
    before = state(host.unet)
    for place in (CONVOLUTION, FEATURE_SIZE):
        with pytest.raises(
            ConfigError, match=r"no layer of the network is 'wings'; choose patterns of: (conv_in|down)"
        ):
            made(host, {(place, "wings"): as_usual})
    with pytest.raises(ConfigError, match=r"mid_block.resnets.0.conv1 is patched twice"):
        made(host, {(CONVOLUTION, "mid*"): as_usual, (CONVOLUTION, "*.resnets.0.conv1"): as_usual})
    assert state(host.unet) == before


def test_a_role_is_the_same_layer_in_every_host_and_where_hidiffusion_has_it(host):
    is_sdxl = host.layers.finest == 1
    assert host.layers.roles == {
        "strided": f"down_blocks.{int(is_sdxl)}.downsamplers.0.conv",
        "unstrided": f"up_blocks.{0 if is_sdxl else 2}.upsamplers.0.conv",
        "pooled": "down_blocks.1.layers.0",
        "unpooled": f"up_blocks.{1 if is_sdxl else 2}.layers.1",
    }
    assert is_sdxl == (max(layer.level for layer in host.layers.maps) == 2)
    for place, among in ((CONVOLUTION, host.layers.convolutions), (FEATURE_SIZE, host.layers.maps)):
        for role in {CONVOLUTION: ("strided", "unstrided"), FEATURE_SIZE: ("pooled", "unpooled")}[place]:
            (chosen,) = select_layers(among, "{" + role + "}", roles=host.layers.roles)
            assert chosen.name == host.layers.roles[role]


def test_patterns_are_names_between_commas_in_running_order(host):
    chosen = select_layers(host.layers.convolutions, " conv_out, conv_in ")
    assert [layer.name for layer in chosen] == ["conv_in", "conv_out"]


def test_a_kernel_keeps_the_size_but_for_its_stride_and_wraps_around_where_the_host_does():
    """A1111's "tiling" makes convolutions circular."""
    layer = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False, padding_mode="circular")
    torch.nn.init.ones_(layer.weight)
    kernel = Kernel(layer, layer.weight.detach(), None)
    corner = torch.zeros(1, 1, 8, 6)
    corner[..., 0, 0] = 1
    assert torch.equal(kernel(corner), layer(corner))
    spread = kernel(corner, dilation=(2, 1))
    assert spread.shape == corner.shape
    assert spread[0, 0].nonzero().tolist() == [[y, x] for y in (0, 2, 6) for x in (0, 1, 5)]
    assert kernel(corner, stride=(2, 3)).shape == (1, 1, 4, 2)
    assert kernel(corner, weight=torch.ones(1, 1, 1, 5), dilation=(1, 1)).shape == corner.shape


def test_a_map_that_comes_in_a_tuple_leaves_in_one():
    """As from diffusers' transformers; and what is cut out of a native call is not asked there."""
    steering, feature_map = Steering(), torch.ones(1, 1, 2, 2)
    steering.place([Patch(FEATURE_SIZE, "*", lambda site, x, **_: 2 * x)], {FEATURE_SIZE: lambda pattern: [LAYER]})
    given = {True: (feature_map,), False: feature_map}
    for is_tuple, left in given.items():
        hook = MapHook(LAYER, steering, Grid(), True, lambda left: left)
        for phase, changes in ((TARGET, True), (NATIVE, False), (OFF, False)):
            with steering.during(phase):
                out = hook(left)
            assert isinstance(out, tuple) == is_tuple
            assert float((out[0] if is_tuple else out).mean()) == (2 if changes else 1)


def test_a_level_is_half_of_the_one_before_rounded_up():
    grid = Grid()
    grid.read(torch.nn.Identity(), (torch.zeros(1, 4, 13, 16),))
    assert [grid.at(level) for level in range(4)] == [(13, 16), (7, 8), (4, 4), (2, 2)]


@pytest.mark.slow
def test_a_method_of_the_catalog_gets_them_also_where_weights_are_offloaded(monkeypatch):
    from fam_ext.hosts.diffusers.host import DiffusersHost

    asked = []

    def dilated(site, feature_map, kernel, *, size, phase):
        asked.append(site)
        return kernel(feature_map, weight=kernel.weight.flip(-1), dilation=(2, 2))

    acts = {
        (CONVOLUTION, "mid_block.resnets.0.*"): dilated,
        (FEATURE_SIZE, "down_blocks.1.layers.0"): lambda site, feature_map, **_: avg_pool2d(feature_map, 2),
        (FEATURE_SIZE, "up_blocks.2.layers.1"): lambda site, feature_map, *, size, phase: interpolate(
            feature_map, size
        ),
    }
    entry = Entry("layered", "layers", "nowhere:nothing", frozenset((CONVOLUTION, FEATURE_SIZE)))
    monkeypatch.setitem(METHODS, "layered", entry)
    monkeypatch.setattr(Entry, "load", lambda entry: lambda config: Stub(acts))
    pictures = []
    for offload in ("none", "sequential"):
        host = DiffusersHost(
            toys.sd_pipeline(), name="toy", device=torch.device("cpu"), dtype=torch.float32, offload=offload
        )
        image = Image.radial_gradient("L").convert("RGB").resize((64, 64))
        done = hires.upscale(host, image, size=(96, 112), sampling=hires.Sampling(steps=2), method="layered")
        pictures.append(hires.to_tensor(done.image))
    assert asked == ["mid_block.resnets.0.conv1", "mid_block.resnets.0.conv2"] * 4
    assert torch.allclose(*pictures, atol=2 / 255)


@pytest.mark.slow
def test_a_compiled_network_is_patched_too():
    host = InDiffusers("sd15")
    acts = {(CONVOLUTION, "mid_block.*"): lambda site, x, kernel, **_: kernel(x, dilation=(2, 2))}
    expected, plain = made(host, acts), host.plain(begun({})[1])
    torch._dynamo.reset()
    host.unet = torch.compile(host.unet, backend="eager")
    host.hooks.unet = host.unet
    latent = begun({})[1]
    for _ in range(2):
        assert torch.allclose(host.plain(latent), plain, atol=1e-5)
        assert torch.allclose(made(host, acts), expected, atol=1e-5)
    torch._dynamo.reset()
