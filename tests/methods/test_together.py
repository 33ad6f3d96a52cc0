"""Two methods in one pass: both act, in order, and a site is nobody's twice."""

import pytest
import torch

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import GuideReport, seeded_noise
from fam_ext.core.schedule import NoiseLevel
from fam_ext.errors import ConfigError
from fam_ext.hosts.sites import Site, select_sites
from fam_ext.hosts.steering import Steering
from fam_ext.methods.base import NATIVE, OFF, TARGET, Condition, Method, Pass, Patch, Pictures, Stage
from fam_ext.methods.capabilities import ATTENTION, CONVOLUTION
from fam_ext.methods.fam import Fam
from fam_ext.methods.together import Together

LEVEL = NoiseLevel(500.0, 0.6, 0.8)
STAGE = Stage((128, 96))
CONDITION = Condition(lambda: torch.zeros(1, dtype=torch.int64))
BLOCKS = [[Site(name, torch.nn.Identity(), torch.nn.Identity()) for name in ("low", "high")]]


def select(pattern):
    return select_sites(BLOCKS, pattern)


def pictures():
    return Pictures(*(seeded_noise((4, *size), [1]) for size in ((8, 8), (16, 12), (16, 12))), None, steps=10)


class Named(Method):
    """Adds a number to the state, notes its calls and patches one kind of site."""

    def __init__(self, number, *, sites=None, chains=False, place=ATTENTION, calls=1):
        super().__init__(FamConfig())
        self.arguments = number, sites, chains, place, calls

    def begin(self, stage, pictures):
        return NamedPass(pictures, *self.arguments)


class NamedPass(Pass):
    def __init__(self, pictures, number, sites, chains, place, calls):
        super().__init__(pictures)
        self.number, self.sites, self.chains, self.place, self.calls = number, sites, chains, place, calls

    def before_step(self, state, level):
        return state * 2 + self.number

    def around_model(self, call, latent, level, condition):
        return sum(call(latent, level, condition) for _ in range(self.calls)) / self.calls

    def patches(self):
        return [Patch(self.place, self.sites, self.act, self.chains)] if self.sites else []

    def act(self, site, q, k, v, *, size, scale, phase):
        return q + self.number if phase == TARGET else None

    def ran(self):
        return GuideReport(self.number, {"low": self.number})


def test_both_act_in_order_and_what_ran_is_summed():
    steered = Together(Named(1, calls=2), Named(3, calls=3)).begin(STAGE, pictures())
    assert float(steered.before_step(torch.zeros(()), LEVEL)) == 2 * 1 + 3
    phases = []

    def call(latent, level, condition, *, phase=TARGET):
        phases.append(phase)
        return latent

    assert torch.equal(steered.around_model(call, torch.ones(1), LEVEL, CONDITION), torch.ones(1))
    assert phases == [TARGET] * 6
    assert steered.ran() == GuideReport(4, {"low": 4})


@pytest.mark.parametrize(("window", "expected"), [((1.0, 0.0), [NATIVE, TARGET]), ((0.2, 0.0), [TARGET])])
def test_the_native_call_is_native_for_both_and_a_sleeping_first_does_not_silence_the_second(window, expected):
    method = Together(Fam(FamConfig(am_window=window, am_sites="low")), Named(3, sites="high"))
    steered, phases = method.begin(STAGE, pictures()), []

    def call(latent, level, condition, *, phase=TARGET):
        phases.append(phase)
        return latent

    steered.around_model(call, torch.ones(1, 4, 16, 12), LEVEL, CONDITION)
    assert phases == expected and method.wants_record
    alone = Together(method.first, Named(3)).begin(STAGE, pictures())
    phases.clear()
    alone.around_model(call, torch.ones(1, 4, 16, 12), LEVEL, CONDITION)
    assert phases == (expected if NATIVE in expected else [OFF])


@pytest.mark.parametrize(("window", "expected"), [((1.0, 0.0), [NATIVE, TARGET]), ((0.2, 0.0), [OFF])])
def test_the_seconds_own_phases_are_kept_where_the_first_only_calls(window, expected):
    steered, phases = Together(Named(3), Fam(FamConfig(am_window=window))).begin(STAGE, pictures()), []

    def call(latent, level, condition, *, phase=TARGET):
        phases.append(phase)
        return latent

    steered.around_model(call, torch.ones(1, 4, 16, 12), LEVEL, CONDITION)
    assert phases == expected


def test_its_options_are_the_firsts():
    first, second = Fam(FamConfig(start=0.7)), Named(1)
    assert Together(first, second).config is first.config


def place(*methods):
    steering = Steering()
    steered = Together(*methods).begin(STAGE, pictures())
    return steering, steering.place(steered.patches(), {ATTENTION: select})[ATTENTION]


def test_sites_that_do_not_meet_are_both_patched_in_running_order():
    steering, sites = place(Named(1, sites="high"), Named(2, sites="low"))
    assert [site.name for site in sites] == ["low", "high"]
    steering.phase, q = TARGET, torch.zeros(1)
    assert [float(steering.attend(name, q, q, q, size=(1, 1), scale=None)) for name in ("low", "high")] == [2, 1]


def test_a_site_patched_twice_is_refused_unless_one_chains():
    assert not Patch(ATTENTION, "*", print).chains
    with pytest.raises(ConfigError, match="high is patched twice; choose methods or sites that do not meet"):
        place(Named(1, sites="high"), Named(2, sites="*"))
    for chains in ((True, False), (False, True)):
        steering, _ = place(*(Named(n + 1, sites="*", chains=chains[n]) for n in range(2)))
        q = torch.zeros(1)
        steering.phase = TARGET
        assert float(steering.attend("low", q, q, q, size=(1, 1), scale=None)) == 1, "the first is asked first"
        steering.phase = NATIVE
        assert steering.attend("low", q, q, q, size=(1, 1), scale=None) is None


def test_a_place_that_no_host_reaches_is_refused():
    with pytest.raises(ConfigError, match="do not reach convolution"):
        place(Named(1, sites="low"), Named(2, sites="high", place=CONVOLUTION))  # here the network has attention alone
