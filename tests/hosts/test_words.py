"""A prompt word by word: where each stands among the states, and what the network is given without some of them."""

import pytest
import torch

from fam_ext.core.schedule import NoiseLevel
from fam_ext.hosts.base import Prompt
from fam_ext.hosts.diffusers.prompts import tokenize
from fam_ext.hosts.diffusers.words import places, split_words, with_only
from fam_ext.methods.base import NATIVE, Pass, Patch, Pictures
from fam_ext.methods.capabilities import CROSS_ATTENTION
from tests.hosts import toys
from tests.hosts.test_guidance import as_host

pytestmark = pytest.mark.slow  # diffusers takes longer to import than a unit file may run
LEVEL = NoiseLevel(500.0, 0.6, 0.8)
PROMPTS = [
    "a red cat, on the (shiny table:1.2) of [wood]",
    r"two \(2\) dogs BREAK a cat",
    " ".join(["a cat on the table"] * 20),
    " ".join(["a cat on the table,"] * 20),
    "",
]


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def host(request):
    return as_host(toys.sd_pipeline() if request.param == "sd" else toys.sdxl_pipeline())


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_words_places_are_its_tokens(host, prompt):
    tokenizer, words = host.pipe.tokenizer, split_words(prompt)
    tokens = [token for chunk in tokenize(prompt, tokenizer)[0] for token in chunk]
    found = places(words, tokenizer)
    for word, own in zip(words, found, strict=True):
        if word.text is not None:
            assert [tokens[place] for place in own] == tokenizer(word.text, add_special_tokens=False).input_ids
    marks = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert sum(len(own) for own in found) == sum(token not in marks for token in tokens)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_with_all_its_words_is_encoded_alike(host, prompt):
    words = split_words(prompt)
    again = with_only(words, range(len(words)))
    chunks, weights = tokenize(again, host.pipe.tokenizer)
    expected, expected_weights = tokenize(prompt, host.pipe.tokenizer)
    assert chunks == expected
    assert torch.allclose(torch.tensor(weights), torch.tensor(expected_weights), atol=1e-5)
    assert with_only(split_words("a (red:1.2) cat"), {0, 1}) == "a (red:1.2)"


class OnlyTheLast(Pass):
    """Leaves the first picture's prompt its last word; notes what its rows have, and what cross-attention shows."""

    def __init__(self, pictures):
        super().__init__(pictures)
        self.had, self.seen = [], []

    def patches(self):
        return [Patch(CROSS_ATTENTION, "*", self.watch)]

    def watch(self, site, q, k, *, size, scale, phase):
        self.seen.append((phase, size, q.shape[-2], k.shape[-2]))

    def around_model(self, call, latent, level, condition):
        self.had.append(condition.words is not None)
        if condition.words is not None:
            call(latent[..., :4, :4], level, condition, phase=NATIVE)
            condition = condition.words.only({0: {len(condition.words.of(0)) - 1}})
        return call(latent, level, condition)


@pytest.mark.parametrize(("low_memory", "had"), [(False, [True]), (True, [False, True])])
def test_a_call_with_fewer_words_is_the_call_of_that_prompt(host, low_memory, had):
    latent = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    steered = OnlyTheLast(Pictures(latent, None, latent, None, steps=2))

    def shown(*prompts, **options):
        words = [Prompt(prompt, "bad") for prompt in prompts]
        with host.model(words, size=(64, 64), cfg_scale=5.0, low_memory=low_memory, **options) as model:
            return model(latent, LEVEL)

    fewer = shown("a red cat", "two dogs", steered=steered)
    assert steered.had == had
    assert torch.allclose(fewer, shown("cat", "two dogs"), atol=1e-5)
    assert not torch.allclose(fewer, shown("a red cat", "two dogs"), atol=1e-5)
    phases = {phase for phase, *_ in steered.seen}
    assert phases == {"native", "target"}
    assert all(queries == size[0] * size[1] and keys == 77 for _, size, queries, keys in steered.seen)
    steered.seen.clear()
    shown("a red cat", "two dogs")
    assert not steered.seen, "nobody looks any more"
