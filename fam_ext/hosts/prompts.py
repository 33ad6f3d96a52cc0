"""The WebUI's prompt language for CLIP text encoders: (emphasis:1.2), [less], BREAK, and prompts of any length."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK = 75
STRONGER = 1.1
_TOKEN = re.compile(r"\\[()\[\]\\]|[()\[\]]|:\s*([+-]?\d*\.?\d+)\s*\)|\bBREAK\b|[^\\()\[\]:B]+|.", re.DOTALL)
_EXTRA_NETWORK = re.compile(r"<(\w+):([^:>]+)(?::([^>]*))?>")


@dataclass(frozen=True)
class Span:
    """A piece of a prompt with the factor on its tokens; BREAK is a span of its own with `text` None."""

    text: str | None
    weight: float = 1.0


def parse_emphasis(prompt: str) -> list[Span]:
    """Return the prompt's pieces: (x) is 1.1, [x] 1/1.1, (x:w) w, nested factors multiply, \\( is a plain bracket.

    Brackets that are not closed count to the end of the prompt, as in the WebUI.
    """
    spans: list[Span] = []
    round_starts: list[int] = []
    square_starts: list[int] = []

    def scale(start: int, factor: float) -> None:
        spans[start:] = [Span(span.text, span.weight * factor) for span in spans[start:]]

    for match in _TOKEN.finditer(prompt):
        text = match.group(0)
        if text == "(":
            round_starts.append(len(spans))
        elif text == "[":
            square_starts.append(len(spans))
        elif match.group(1) is not None and round_starts:
            scale(round_starts.pop(), float(match.group(1)))
        elif text == ")" and round_starts:
            scale(round_starts.pop(), STRONGER)
        elif text == "]" and square_starts:
            scale(square_starts.pop(), 1 / STRONGER)
        elif text == "BREAK":
            spans.append(Span(None))
        else:
            spans.append(Span(text[1:] if text.startswith("\\") and len(text) > 1 else text))
    for start in round_starts:
        scale(start, STRONGER)
    for start in square_starts:
        scale(start, 1 / STRONGER)
    return _merged(spans)


def _merged(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in spans:
        last = merged[-1] if merged else None
        if last and last.text is not None and span.text is not None and last.weight == span.weight:
            merged[-1] = Span(last.text + span.text, span.weight)
        else:
            merged.append(span)
    return merged


def split_extra_networks(prompt: str) -> tuple[str, list[tuple[str, str, float]]]:
    """Return the prompt without its <kind:name:weight> tags, and the tags as (kind, name, weight)."""
    tags = [(kind, name, _number(weight)) for kind, name, weight in _EXTRA_NETWORK.findall(prompt)]
    return _EXTRA_NETWORK.sub("", prompt), tags


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


def tokenize(prompt: str, tokenizer: Any) -> tuple[list[list[int]], list[list[float]]]:  # noqa: ANN401
    """Return the chunks of 75 tokens with their begin and end marks, and the factors of all tokens.

    At least one chunk; BREAK ends one early.
    """
    chunks: list[list[int]] = [[]]
    weights: list[list[float]] = [[]]
    for span in parse_emphasis(prompt):
        if span.text is None:
            chunks.append([])
            weights.append([])
            continue
        for token in tokenizer(span.text, add_special_tokens=False, truncation=False, verbose=False).input_ids:
            if len(chunks[-1]) == CHUNK:
                chunks.append([])
                weights.append([])
            chunks[-1].append(token)
            weights[-1].append(span.weight)
    return [_framed(chunk, tokenizer) for chunk in chunks], [[1.0, *w, *[1.0] * (CHUNK + 1 - len(w))] for w in weights]


def _framed(chunk: list[int], tokenizer: Any) -> list[int]:  # noqa: ANN401
    padding = CHUNK - len(chunk)
    return [tokenizer.bos_token_id, *chunk, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * padding]


def encode_prompt(
    prompt: str,
    tokenizer: Any,  # noqa: ANN401
    text_encoder: Any,  # noqa: ANN401
    *,
    chunks: int,
    clip_skip: int | None = None,
    penultimate: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the token states (1, 77 * chunks, width) and the pooled state (1, width) of the first chunk.

    `chunks` pads with empty chunks. `clip_skip` n takes the n-th layer from the end (1: the last), then the final norm,
    as the WebUI does; `penultimate` is SDXL's: the last but one layer without the final norm. Weighted states keep the
    mean of the plain ones.
    """
    tokens, weights = tokenize(prompt, tokenizer)
    empty_tokens, empty_weights = tokenize("", tokenizer)
    tokens += empty_tokens * (chunks - len(tokens))
    weights += empty_weights * (chunks - len(weights))
    device = next(text_encoder.parameters()).device
    output = text_encoder(torch.tensor(tokens, device=device), output_hidden_states=True)
    if penultimate:
        states = output.hidden_states[-2 if clip_skip is None else -(clip_skip + 1)]
    elif clip_skip is None or clip_skip <= 1:
        states = output.last_hidden_state
    else:
        final_norm = getattr(text_encoder, "text_model", text_encoder).final_layer_norm
        states = final_norm(output.hidden_states[-clip_skip])
    factors = torch.tensor(weights, device=device, dtype=states.dtype)[..., None]
    if bool((factors != 1).any()):
        mean = states.float().mean()
        states = states * factors
        states = states * (mean / states.float().mean()).to(states.dtype)
    pooled = output.text_embeds if hasattr(output, "text_embeds") else output.pooler_output
    return states.reshape(1, -1, states.shape[-1]), pooled[:1]


def count_chunks(prompt: str, tokenizer: Any) -> int:  # noqa: ANN401
    """Return how many chunks of 75 tokens `prompt` takes."""
    return len(tokenize(prompt, tokenizer)[0])
