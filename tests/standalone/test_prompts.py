"""The WebUI's prompt language."""

import re
import time
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fam_ext import standalone
from fam_ext.errors import PictureError
from fam_ext.hosts.diffusers.prompts import (
    CHUNK,
    MAX_CHUNKS,
    Span,
    cut_note,
    encode_prompt,
    parse_emphasis,
    settle,
    split_extra_networks,
    tokenize,
)
from tests.hosts import toys

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("prompt", "spans"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("a (cat:1.2)", [("a ", 1.0), ("cat", 1.2)]),
        ("a (cat)", [("a ", 1.0), ("cat", 1.1)]),
        ("a [cat]", [("a ", 1.0), ("cat", 1 / 1.1)]),
        ("((x))", [("x", 1.21)]),
        ("(a (b:2):0.5)", [("a ", 0.5), ("b", 1.0)]),
        (r"\(plain\) [x", [("(plain) ", 1.0), ("x", 1 / 1.1)]),
        ("time 12:30, ratio 2:1)", [("time 12:30, ratio 2:1)", 1.0)]),
        ("a BREAK b", [("a ", 1.0), (None, 1.0), (" b", 1.0)]),
        ("BREAKFAST", [("BREAKFAST", 1.0)]),
        ("", []),
    ],
)
def test_emphasis(prompt, spans):
    parsed = parse_emphasis(prompt)
    assert [span.text for span in parsed] == [text for text, _ in spans]
    assert [span.weight for span in parsed] == pytest.approx([weight for _, weight in spans])


@given(st.text(max_size=60))
def test_any_text_parses_and_plain_text_is_kept(text):
    spans = parse_emphasis(text)
    assert all(isinstance(span, Span) for span in spans)
    if not set(text) & set("()[]\\:") and "BREAK" not in text:
        assert "".join(span.text for span in spans) == text


def test_extra_networks_are_taken_out():
    assert split_extra_networks("a <lora:detail:0.8> cat<hypernet:x>") == (
        "a  cat",
        [("lora", "detail", 0.8), ("hypernet", "x", 1.0)],
    )


@pytest.mark.slow
def test_chunks_of_any_length_and_weights():
    tokenizer = toys.tokenizer()
    tokens, weights = tokenize("cat " * 100 + "(dog:1.5)", tokenizer)
    assert len(tokens) == 2 and {len(chunk) for chunk in tokens} == {CHUNK + 2} == {len(chunk) for chunk in weights}
    assert weights[1].count(1.5) == len(tokenizer("dog", add_special_tokens=False).input_ids)
    counts = {"a BREAK b": 2, "a BREAK": 1, "BREAK": 1, "BREAK a": 2, "a BREAK BREAK": 2, "": 1}  # as in the WebUI
    assert {prompt: len(tokenize(prompt, tokenizer)[0]) for prompt in counts} == counts
    many = "cat BREAK " * (MAX_CHUNKS + 5)
    assert tokenize(many, tokenizer)[0] == MAX_CHUNKS * tokenize("cat", tokenizer)[0] and cut_note(many, tokenizer)


@pytest.mark.slow
def test_a_padding_mark_within_a_prompt_is_a_word():
    first = toys.tokenizer()
    second = type(first).from_pretrained(standalone.demo_model() / "tokenizer", pad_token="!")  # SDXL's, SD2.1's
    assert first("dog!!!", add_special_tokens=False) != second("dog!!!", add_special_tokens=False)
    for prompt in ("a dog!!!", "wow!?, (a cat!:1.2)", "dog!!! " * 30):
        ends = first.pad_token_id, second.pad_token_id
        chunks = [tokenize(prompt, each)[0] for each in (first, second)]
        words = [[token for chunk in own for token in chunk if token not in ends] for own in chunks]
        assert words[0] == words[1] and len(chunks[0]) == len(chunks[1])


def numbers(text, **_):
    """A tokenizer: a number is that token, a comma 0."""
    return SimpleNamespace(input_ids=[0 if part == "," else int(part) for part in re.findall(r"\d+|,", text)])


numbers.bos_token_id = numbers.eos_token_id = numbers.pad_token_id = -1


@pytest.mark.parametrize(
    ("commas", "first"),
    [((55,), 56), ((54,), 75), ((60, 66), 67), ((74,), 75), ((75,), 75), ((60, 75), 75), ((), 75)],
)
def test_what_follows_a_late_comma_goes_into_the_next_chunk_with_its_factor(commas, first):
    # as the WebUI's tokenize_line: at most 20 tokens from the comma to the end, and never before a comma itself
    parts = ["," if place in commas else f"({place + 1}:1.5)" if place > 66 else f"{place + 1}" for place in range(160)]
    tokens, weights = tokenize(" ".join(parts), numbers)
    assert [sum(token != -1 for token in chunk) for chunk in tokens] == [first, 75, 85 - first]
    shown = [
        (token, factor) for chunk in zip(tokens, weights, strict=True) for token, factor in zip(*chunk, strict=True)
    ]
    assert all((factor == 1.5) == (token > 67) for token, factor in shown)
    assert [token for token, _ in shown if token > 0] == [place + 1 for place in range(160) if place not in commas]
    chunks, _ = tokenize(" ".join([*parts[:70], "BREAK", *80 * "1"]), numbers)
    assert [sum(token != -1 for token in chunk) for chunk in chunks] == [70, 75, 5], "no comma of another chunk counts"


@pytest.mark.slow
def test_states_are_the_encoders_own_and_weights_change_them_but_not_their_mean():
    pipe = toys.sd_pipeline()
    with torch.no_grad():
        plain, _ = encode_prompt("a red cat", pipe.tokenizer, pipe.text_encoder, chunks=1, device=CPU)
        own = pipe.encode_prompt("a red cat", "cpu", 1, False)[0]
        weighted, _ = encode_prompt("a (red:1.6) cat", pipe.tokenizer, pipe.text_encoder, chunks=2, device=CPU)
        skipped, _ = encode_prompt("a red cat", pipe.tokenizer, pipe.text_encoder, chunks=1, device=CPU, clip_skip=2)
        ids = torch.tensor(tokenize("a red cat", pipe.tokenizer)[0])
        states = pipe.text_encoder(ids, output_hidden_states=True).hidden_states
        own_skipped = pipe.text_encoder.final_layer_norm(states[-2])
    assert torch.allclose(plain, own, atol=1e-6)
    assert torch.allclose(skipped, own_skipped, atol=1e-6)
    assert weighted.shape == (1, 154, 32) and not torch.allclose(weighted[:, :77], plain, atol=1e-3)


@pytest.mark.slow
def test_each_chunk_keeps_its_own_mean_however_many_there_are():
    tokenizer = toys.tokenizer()
    plain = torch.rand(4, CHUNK + 2, 8, generator=torch.Generator().manual_seed(1)) + torch.arange(4.0)[:, None, None]

    def encoder(tokens, **_):
        shown = plain[: len(tokens)]
        return SimpleNamespace(last_hidden_state=shown, pooler_output=shown[:, 0])

    encoder.config = SimpleNamespace(num_hidden_layers=1)
    prompt = "(cat:1.6) dog BREAK a (red:0.5) dog BREAK dog"
    by_count = [encode_prompt(prompt, tokenizer, encoder, chunks=count, device=CPU)[0] for count in (3, 4)]
    weights = torch.tensor(tokenize(prompt, tokenizer)[1])
    for chunk, (states, factors) in enumerate(zip(plain[:3], weights, strict=True)):
        weighted = states * factors[:, None]
        expected = weighted * (states.mean() / weighted.mean())
        for made in by_count:
            assert torch.equal(made.unflatten(1, (-1, CHUNK + 2))[0, chunk], expected)


@pytest.mark.slow
@pytest.mark.parametrize(("cat", "dog"), [(0, 0), (1, -1), (1, -2)], ids=["0 to 0", "0 to 1", "-1 to 0"])
def test_a_mean_of_zero_neither_breaks_nor_empties_the_states(cat, dog):
    plain = torch.tensor([8.0, -8.0]).repeat(1, CHUNK + 2, 1)
    plain[0, 1] += cat
    plain[0, 2] += dog

    def encoder(*_, **__):
        return SimpleNamespace(last_hidden_state=plain, pooler_output=plain[:, 0])

    encoder.config = SimpleNamespace(num_hidden_layers=1)
    states, _ = encode_prompt("(cat:2) dog", toys.tokenizer(), encoder, chunks=1, device=CPU)
    assert torch.equal(states[0, 1], 2 * plain[0, 1]) and torch.equal(states[0, 2:], plain[0, 2:])


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece", ["(a", "[a", "(a)", "<a:b", "<a:", "(", ":1", "(a:1)[", "BREAK ", "[a:", "[a:b:0.5]", "[a|"]
)
def test_hostile_prompts_take_linear_time_and_a_stated_number_of_chunks(piece):
    tokenizer = toys.tokenizer()
    prompt = piece * (300_000 // len(piece))
    began = time.process_time()
    split_extra_networks(prompt)
    parse_emphasis(prompt)
    settle(prompt)
    chunks, weights = tokenize(prompt, tokenizer)
    assert time.process_time() - began < 10  # 5 minutes once
    assert len(chunks) == len(weights) <= MAX_CHUNKS
    assert f"of {len(prompt)} characters is cut to {MAX_CHUNKS} chunks" in cut_note(prompt, tokenizer)
    assert cut_note("a cat", tokenizer) is None


@pytest.mark.slow
def test_clip_skip_above_the_layers_is_one_sentence():
    pipe = toys.sd_pipeline()
    with pytest.raises(PictureError, match="clip skip is 9; the model's text encoder has 3 layers, choose 1 to 3"):
        encode_prompt("a", pipe.tokenizer, pipe.text_encoder, chunks=1, device=CPU, clip_skip=9)


LATER, TURNS, ADDED = (
    "[from:to:when] is drawn as its second text",
    "[a|b] is drawn as all of its texts",
    "AND is drawn as a comma",
)


@pytest.mark.parametrize(
    ("prompt", "drawn", "changed"),
    [
        ("a [cat:dog:0.5] here", "a dog here", [LATER]),
        ("[(cat:1.2):dog:10] [fur:0.3]", "dog fur", [LATER]),
        ("a[ big::8] cat", "a cat", [LATER]),
        ("[x:[y:z:5]:0.7]", "z", [LATER]),
        ("[red|blue] [[a:b:0.3]|c]", "red, blue b, c", [TURNS, LATER]),
        ("a wood AND a river :1.2", "a wood, (a river:1.2)", [ADDED]),
        *((text, text, []) for text in ("[less] (x:1.2)", r"\[a:b:0.5\]", "[a:b:0.5", "a]b", "[a:b]", "5 | 6: SAND")),
    ],
)
def test_schedules_are_settled_and_said(prompt, drawn, changed):
    assert settle(prompt) == (drawn, changed)


@pytest.mark.slow
def test_an_offloaded_text_encoder_gets_and_gives_where_it_runs():
    """On "meta", which stands for a card: accelerate moves no arguments where the weights are there already."""
    accelerate = pytest.importorskip("accelerate")
    pipe, card = toys.sd_pipeline(), torch.device("meta")
    accelerate.cpu_offload_with_hook(pipe.text_encoder, card)
    with torch.inference_mode():
        for text in ("bad", "a (cat:1.2)"):
            states, _ = encode_prompt(text, pipe.tokenizer, pipe.text_encoder, chunks=1, device=card)
            assert states.device == card
