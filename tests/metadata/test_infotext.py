"""Infotext: what is written is read back, by us and by the WebUI's own grammar; nesting is undone verbatim."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError
from fam_ext.metadata.dissect import unquote
from fam_ext.metadata.infotext import (
    Infotext,
    add,
    format_infotext,
    format_params,
    format_value,
    from_fields,
    parse,
    quote,
    readable_fields,
    request_value,
    to_fields,
    undo,
)
from fam_ext.options.table import BY_NAME, CONFIG_FIELDS
from tests.inputs import drawn

A1111 = (
    'a tree\nwith "quotes", emoji\nNegative prompt: a: b, c\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, '
    'CFG scale: 5.0, Seed: 15, Size: 256x256, Lora hashes: "one: abc, two: def", Version: 1.10.1'
)

CHOICES = {spec.name: spec.choices for spec in CONFIG_FIELDS}
unit = st.floats(0, 1)
windows = st.tuples(unit, unit).map(lambda pair: (max(pair), min(pair)))


@st.composite
def configs(draw):
    reference = draw(st.sampled_from(CHOICES["cutoff_reference"]))
    return FamConfig(
        cutoff=draw(st.floats(0, 512 if reference == "cycles" else 1)),
        attention=draw(unit),
        fm=draw(st.booleans()),
        am=draw(st.booleans()),
        fm_window=draw(windows),
        fm_boundary=draw(st.sampled_from(CHOICES["fm_boundary"])),
        fm_edge=draw(unit),
        am_window=draw(windows),
        am_sites=draw(
            st.text(min_size=1, max_size=30).filter(
                lambda text: text.strip() and text.isprintable() and text != "False"
            )
        ),
        am_interp=draw(st.sampled_from(CHOICES["am_interp"])),
        am_source=draw(st.sampled_from(CHOICES["am_source"])),
        cutoff_reference=reference,
        reference=draw(st.sampled_from(CHOICES["reference"])),
        start=draw(st.floats(0.001, 1)),
        upsample=draw(st.sampled_from(CHOICES["upsample"])),
        step_invariant=draw(st.booleans()),
    )


@given(configs())
def test_config_round_trip_through_text(config: FamConfig) -> None:
    text = f"a cat\nSteps: 20, Sampler: Euler, {format_params(to_fields(config))}"
    assert from_fields(parse(text).params) == config


@given(configs())
def test_written_keys_and_values_are_the_webuis_grammar(config: FamConfig) -> None:
    fields = to_fields(config)
    assert next(iter(fields)) == "FAM version"
    for key, value in fields.items():
        assert key.startswith("FAM ")
        assert re.fullmatch(r"\w[\w \-/]+", key)
        assert not re.fullmatch(r"\d+x\d+", value) or key == "FAM AM sites"
        assert value != "False"


def test_defaults_write_the_version_only() -> None:
    assert list(to_fields(FamConfig())) == ["FAM version"]
    assert to_fields(FamConfig(fm=False))["FAM no FM"] == "True"


def test_parse_of_a_real_text() -> None:
    found = parse(A1111)
    assert found.prompt == 'a tree\nwith "quotes", emoji'
    assert found.negative_prompt == "a: b, c"
    assert found.params["Lora hashes"] == "one: abc, two: def"
    assert found.params["Version"] == "1.10.1"
    assert request_value(found.params, "seed") == 15
    assert request_value(found.params, "cfg_scale") == 5.0
    assert request_value(found.params, "tile") is None
    assert parse(format_infotext(found)) == found


@given(st.text(max_size=200))
def test_parse_never_raises_and_quote_round_trips(text: str) -> None:
    assert isinstance(parse(text), Infotext)
    assert unquote(quote(text)) == text


earlier_texts = st.one_of(
    st.text(max_size=120),
    st.sampled_from(["", A1111, "just a prompt", A1111 + "\n", A1111 + ",", "Steps: 1, Sampler: x, Seed: 2"]),
    st.text(alphabet='abAB:,"\n \\/FM version123x', max_size=80),
    st.tuples(st.text(max_size=20), st.sampled_from([A1111, 'Aa: "b, Cc: d, Ee: f'])).map("\n".join),
)


@settings(max_examples=drawn(300))
@given(earlier_texts, configs())
def test_adding_is_undone_verbatim_and_read_back(text: str, config: FamConfig) -> None:
    once = add(text, to_fields(config), settings={"Steps": "30", "Sampler": "DDIM", "Seed": "1"})
    assert undo(once) == text
    assert from_fields(parse(once).params) == config
    twice = add(once, to_fields(FamConfig(cutoff=0.25)), settings={"Steps": "30", "Sampler": "DDIM", "Seed": "1"})
    assert undo(twice) == once
    assert from_fields(parse(twice).params).cutoff == 0.25


def test_a_real_text_stays_word_for_word_in_front() -> None:
    added = add(A1111, {**to_fields(FamConfig(start=0.7)), "FAM size": "512 x 512"})
    assert (
        added == f"{A1111}, FAM version: {to_fields(FamConfig())['FAM version']}, FAM start: 0.7, FAM size: 512 x 512"
    )
    assert parse(added).params["Seed"] == "15"


def test_a_value_out_of_range_names_its_field() -> None:
    with pytest.raises(ConfigError, match="attention"):
        from_fields({"FAM attention": "3"})
    with pytest.raises(ConfigError, match="FAM cutoff"):
        from_fields({"FAM cutoff": "much"})
    assert from_fields({"FAM from the future": "1"}) == FamConfig()


def test_a_long_seed_is_written_digit_by_digit() -> None:
    for seed in (0, 10**15, 2**53 + 1, 2**64 - 1):
        text = format_value(BY_NAME["seed"], seed)
        assert text == str(seed) and request_value({"Seed": text}, "seed") == seed


def test_a_comparison_method_is_not_labelled_fam() -> None:
    added = add(A1111, {"Upscale method": "direct"})
    assert "FAM version" not in parse(added).params
    assert undo(added) == A1111


def test_without_an_earlier_text_the_prompt_leads() -> None:
    config = FamConfig(start=0.7)
    added = add(None, to_fields(config), settings={"Steps": "30"}, heading="a cat\nNegative prompt: dog")
    found = parse(added)
    assert (found.prompt, found.negative_prompt, found.params["Steps"]) == ("a cat", "dog", "30")
    assert from_fields(found.params) == config
    assert undo(added) == ""


def test_one_bad_value_leaves_the_others() -> None:
    params = {
        "FAM version": "0.1.0",
        "FAM cutoff": "900",
        "FAM start": "0.6",
        "FAM AM window": "x",
        "FAM no AM": "True",
    }
    config, problems = readable_fields(params)
    assert (config.start, config.am, config.cutoff) == (0.6, False, FamConfig().cutoff)
    assert len(problems) == 2 and "cutoff is 900" in problems[0] and "FAM AM window" in problems[1]
    fine = to_fields(FamConfig(cutoff=32, cutoff_reference="cycles", start=0.7))
    assert readable_fields(fine) == (FamConfig(cutoff=32, cutoff_reference="cycles", start=0.7), [])


@pytest.mark.parametrize(
    "text",
    [
        "a" * 300_000 + "\nSteps: 20, Sampler: Euler, Seed: 1",
        "a " * 300_000 + "\nSteps: 20, Sampler: Euler, Seed: 1",
        'Key: "' * 100_000,
        'Kk:["aa,' * 100_000,
        "Kk: " + "[" * 300_000,
    ],
)
def test_parse_takes_linear_time(text: str) -> None:
    began = time.process_time()
    parse(text)
    undo(text)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("text", "prompt", "negative", "seed"),
    [
        ("a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler, Seed: 5\nTemplate: a {cat|cow}", "a cat", "dog", 5),
        ("a cat Negative prompt: dog Steps: 20, Sampler: Euler, Seed: 5", "a cat", "dog", 5),
        ("Prompt: a cat\nNegative prompt: dog\nSteps: 22 | Seed: 5 | Sampler: Euler | Operations: ", "a cat", "dog", 5),
        ('a cat\nsteps: 20, SEED: 5, Other: [{"a": "Seed: 9, Steps: 3"}], Size: 8x8', "a cat", "", 5),
        ("a cat\nNegative prompt: dog", "a cat", "dog", None),
        ("time: noon, place: home, mood: calm", "time: noon, place: home, mood: calm", "", None),
    ],
)
def test_settings_stand_where_a_known_key_is_followed_by_others(text, prompt, negative, seed) -> None:
    found = parse(text)
    assert (found.prompt, found.negative_prompt, request_value(found.params, "seed")) == (prompt, negative, seed)


WORDS = ("a red barn, evening", "fog, letters")
LINE = "Steps: 21, Sampler: Euler a, CFG scale: 5.5, Seed: 777, Size: 64x48"
TEXTS = {
    "SD.Next of 2023": "prompt: a red barn, evening\nNegative prompt: fog, letters\n"
    "Version: aa62f6d, Pipeline: Original,\nSteps: 21 | Seed: 777 | Sampler: Euler a | CFG scale: 5.5 | Size: 64x48 | "
    "Parser: Full parser | Operations: | Hires upscale: 2",
    "Easy Diffusion's .txt": "Prompt: a red barn, evening\nNegative Prompt: fog, letters\nSeed: 777\n"
    "Stable Diffusion model: sd-v1-4\nClip Skip: False\nVAE model: None\nSampler: Euler a\nWidth: 64\n"
    "Height: 48\nSteps: 21\nGuidance Scale: 5.5\nLoRA model: None",
    "Easy Diffusion's first .txt": "a red barn, evening\nWidth: 64\nHeight: 48\nSeed: 777\nSteps: 21\n"
    "Guidance Scale: 5.5\nPrompt Strength: 0.8\nUse Face Correction: None\nUse Upscaling: None\nSampler: Euler a\n"
    "Negative Prompt: fog, letters\nStable Diffusion model: sd-v1-4",
    "one setting a line": "a red barn, evening\nNegative prompt: fog, letters\nSteps: 21, \nSampler: Euler a, \n"
    "CFG scale: 5.5, \nSeed: 777, \nSize: 64x48, \nModel: demo",
    "settings over two lines": "a red barn, evening\nNegative prompt: fog, letters\n"
    "Steps: 21, Sampler: Euler a, Size: 64x48\nCFG scale: 5.5, Seed: 777, Version: v1.5.1",
    "on one line": f"a red barn, evening. Negative prompt: fog, letters. {LINE}",
    "under a heading": f"Positive prompt: a red barn, evening\nNegative prompt: fog, letters\n{LINE}",
    "behind a word": f"parameters: a red barn, evening\nNegative prompt: fog, letters\n{LINE}",
    "in capitals": f"a red barn, evening\nNEGATIVE PROMPT: fog, letters\n{LINE.upper().replace('EULER A', 'Euler a')}",
    "more lines after it": f"a red barn, evening\nNegative prompt: fog, letters\n{LINE}\n"
    "Template: a {red|blue} barn\n\nWildcard prompt: __barn__\nNegative Template: fog",
    "a value with a line break": f"a red barn, evening\nNegative prompt: fog, letters\n{LINE}, Wildcard: first\n"
    "second, Version: v1",
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_as_programs_write_them(name: str) -> None:
    found = parse(TEXTS[name])
    assert (found.prompt.rstrip("."), found.negative_prompt.rstrip(".")) == WORDS
    given = found.params.get("CFG scale", found.params.get("Guidance Scale"))
    assert (found.params["Steps"], found.params["Sampler"], found.params["Seed"], given) == (
        "21",
        "Euler a",
        "777",
        "5.5",
    )


@pytest.mark.parametrize(
    "prose",
    [
        "Seed: 5, blue sky, a lawn",
        "a poster that says Steps: 3, Size: big",
        "size: huge\nmodel: a girl in red\nversion: two",
        "Camera: Canon, Lens: 50 mm, Exposure: 1/60",
    ],
)
def test_prose_with_colons_is_a_prompt(prose: str) -> None:
    assert parse(f"{prose}\nNegative prompt: fog\n{LINE}").prompt == prose
    assert parse(prose).params == {}


@pytest.mark.parametrize(
    "words",
    [
        "Model: Kate Moss",
        "Version: two, Width: wide",
        "Size: big\nModel: a girl",
        "Size: 640x480",
        "Seed: 5\nNegative prompt: fog",
        "Parser: none\nSeed: of a flower",
        "Seed: 5, Style: baroque, Mood: dark",
        "Seed: 5, Style: baroque, Mood: dark\nNegative prompt: fog",
    ],
)
def test_the_last_words_above_a_whole_settings_line_stay_words(words: str) -> None:
    found = parse(f"a product photo\n{words}\n{LINE}")
    prompt, _, negative = words.partition("\nNegative prompt: ")
    assert (found.prompt, found.negative_prompt) == (f"a product photo\n{prompt}", negative)
    assert found.params == parse(LINE).params


@pytest.mark.parametrize("name", TEXTS)
def test_our_line_below_leaves_the_words_as_they_are(name: str) -> None:
    settings = {"Steps": "30", "Sampler": "DDIM", "Seed": "1"}
    made = parse(add(TEXTS[name], to_fields(FamConfig()), settings=settings))
    found = parse(TEXTS[name])
    assert (made.prompt, made.negative_prompt) == (found.prompt, found.negative_prompt)
    assert "FAM version" in made.params


def test_our_keys_behind_settings_between_bars() -> None:
    text = "a barn\nSteps: 21 | Seed: 777 | Sampler: Euler a | Operations: txt2img, Hires: none, VAE: none"
    made = add(text, {"FAM version": "1", "FAM prompt": "x | Seed: 9"})
    assert made.startswith(f"{text}, FAM version")
    found = parse(made).params
    assert (found["Steps"], found["Seed"], found["FAM version"]) == ("21", "777", "1")
    assert found["FAM prompt"] == "x | Seed: 9"


def test_settings_above_a_whole_line_are_told_by_their_values() -> None:
    found = parse(f"a red barn\nVersion: v1.5, Model hash: 0123abcd\nClip skip: 2\n{LINE}")
    assert found.prompt == "a red barn"
    assert (found.params["Version"], found.params["Model hash"], found.params["Clip skip"]) == ("v1.5", "0123abcd", "2")


@pytest.mark.parametrize("line", ["Sampler: Euler, Seed: 5, CFG scale: 7", "Steps: 20.5, Sampler: Euler, Seed: 5"])
def test_our_own_steps_begin_no_settings(line: str) -> None:
    made = add(f"a cat\n{line}", {"FAM version": "1", "FAM steps": "30", "FAM sampler": "DDIM"})
    assert parse(made).params["FAM version"] == "1" and parse(made).params["Seed"] == "5"
    assert parse(made).prompt == "a cat"


def test_our_own_settings_line_says_a_value_once_and_another_value_stays():
    line = {"Steps": "30", "Seed": "4", "Size": "1024x1024"}
    same, other = (
        parse(add(None, {"FAM version": "1", "FAM steps": steps, "FAM seed": seed}, settings=line)).params
        for steps, seed in (("30", "4"), ("20", "5"))
    )
    assert "FAM steps" not in same and "FAM seed" not in same and same["Steps"] == "30"
    assert (other["Steps"], other["FAM steps"], other["FAM seed"]) == ("30", "20", "5")
