"""The WebUI's prompt language for CLIP text encoders: (emphasis:1.2), [less], BREAK, and prompts of any length."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fam_ext.errors import PictureError

CHUNK = 75
MAX_CHUNKS = 20
"""What a prompt may take: 1500 tokens. The rest is left out, with a note."""
COMMA_REACH = 20
"""The WebUI's "Prompt word wrap length limit"."""
_MAX_CHARACTERS = 100 * CHUNK * MAX_CHUNKS
"""No tokenizer is shown more: more than any such prompt has."""
STRONGER = 1.1
_TOKEN = re.compile(
    r"\\[()\[\]\\]|[()\[\]]|:\s{0,8}([+-]?\d{0,8}\.?\d{1,16})\s{0,8}\)|\bBREAK\b|[^\\()\[\]:B]+|.", re.DOTALL
)
# no "<" inside a tag: else each of many "<a:" reads to the end of the prompt
_EXTRA_NETWORK = re.compile(r"<(\w{1,32}):([^:<>]+)(?::([^<>]*))?>")

_EMBEDDING = re.compile(r"\bembedding:([^\s,:()\[\]<>|]+)")


@dataclass(frozen=True)
class Span:
    """A piece of a prompt with the factor on its tokens; BREAK is a span of its own with `text` None."""

    text: str | None
    weight: float = 1.0


def parse_emphasis(prompt: str) -> list[Span]:
    """Return the prompt's pieces: (x) is 1.1, [x] 1/1.1, (x:w) w, nested factors multiply, \\( is a plain bracket.

    Brackets that are not closed count to the end of the prompt, as in the WebUI. Time is linear in the prompt.
    """
    tokens = list(_TOKEN.finditer(prompt))
    factors = _bracket_factors(tokens)
    spans: list[Span] = []
    # brackets of one kind nest; of the two kinds they may cross, so each keeps the product of its open ones
    products = {"(": [1.0], "[": [1.0]}
    texts: list[str] = []
    weight = 1.0

    def flush() -> None:
        if texts:
            spans.append(Span("".join(texts), weight))
            texts.clear()

    for index, match in enumerate(tokens):
        text = match.group(0)
        if index in factors:
            kind, factor = factors[index]
            if factor is None:
                products[kind].pop()
            else:
                products[kind].append(products[kind][-1] * factor)
        elif text == "BREAK":
            flush()
            spans.append(Span(None))
        else:
            now = products["("][-1] * products["["][-1]
            if now != weight:
                flush()
                weight = now
            texts.append(text[1:] if text.startswith("\\") and len(text) > 1 else text)
    flush()
    return spans


def _bracket_factors(tokens: list[re.Match[str]]) -> dict[int, tuple[str, float | None]]:
    """Return by a bracket's place among `tokens` its kind, and the factor it opens or None where it closes.

    A closing bracket without an opening one is text, and so is not there.
    """
    found: dict[int, tuple[str, float | None]] = {}
    open_at: dict[str, list[int]] = {"(": [], "[": []}
    for index, match in enumerate(tokens):
        text, kind, factor = match.group(0), "(", STRONGER
        if text in open_at:
            open_at[text].append(index)
            found[index] = (text, STRONGER if text == "(" else 1 / STRONGER)
            continue
        if text == "]":
            kind, factor = "[", 1 / STRONGER
        elif match.group(1) is not None:
            factor = float(match.group(1))
        elif text != ")":
            continue
        if open_at[kind]:
            found[open_at[kind].pop()] = (kind, factor)
            found[index] = (kind, None)
    return found


def split_extra_networks(prompt: str) -> tuple[str, list[tuple[str, str, float]]]:
    """Return the prompt without its <kind:name:weight> tags, and the tags as (kind, name, weight)."""
    tags = [(kind, name, _number(weight)) for kind, name, weight in _EXTRA_NETWORK.findall(prompt)]
    return _EXTRA_NETWORK.sub("", prompt), tags


def embedding_names(prompt: str) -> list[str]:
    """Return the textual inversions that `prompt` names as ComfyUI does, embedding:NAME, each once."""
    return list(dict.fromkeys(_EMBEDDING.findall(prompt)))


def settle(prompt: str) -> tuple[str, list[str]]:
    """Return `prompt` with the WebUI's schedules as this host draws them, and what was changed, a few words each.

    [from:to:when] and [to:when] become `to`, as the WebUI's second pass begins where `when` is of the first;
    [a|b], which takes turns, and AND, which adds predictions up, become all of their words. Time is linear in the
    prompt but for the depth of its brackets.
    """
    frames = [_Bracket()]
    changed: dict[str, None] = {}
    for match in _SCHEDULE_TOKEN.finditer(prompt[:_MAX_CHARACTERS]):
        token = match.group(0)
        if token == "[":
            frames.append(_Bracket())
        elif token == "]" and len(frames) > 1:
            text, change = frames.pop().closed()
            frames[-1].parts[-1].append(text)
            changed |= {change: None} if change else {}
        else:
            frames[-1].take(token)
    text = "[".join(frame.text() for frame in frames) + prompt[_MAX_CHARACTERS:]
    if _AND.search(text):
        changed[_AND_CHANGE] = None
        text = ", ".join(_weighted_part(part) for part in _AND.split(text))
    return text, list(changed)


_SCHEDULE_TOKEN = re.compile(r"\\.|[\[\]():|]|[^\\\[\]():|]+|\\", re.DOTALL)
_AND = re.compile(r"\bAND\b")
_AND_CHANGE = "AND is drawn as a comma"
_PART = re.compile(r"(.*):\s*([+-]?(?:\d+\.?\d*|\.\d+))", re.DOTALL)


def _weighted_part(part: str) -> str:
    match = _PART.fullmatch(part.strip())
    return part.strip() if match is None else f"({match[1].strip()}:{match[2]})"


class _Bracket:
    """What stands between [ and ], or in no bracket at all: its parts, and the marks : and | between them."""

    def __init__(self) -> None:
        self.parts: list[list[str]] = [[]]
        self.marks: list[str] = []
        self._depth = 0

    def take(self, token: str) -> None:
        if token in (":", "|") and not self._depth:  # within (...) a colon is an emphasis'
            self.marks.append(token)
            self.parts.append([])
            return
        self._depth = max(0, self._depth + {"(": 1, ")": -1}.get(token, 0))
        self.parts[-1].append(token)

    def text(self) -> str:
        texts = ["".join(part) for part in self.parts]
        return texts[0] + "".join(mark + text for mark, text in zip(self.marks, texts[1:], strict=True))

    def closed(self) -> tuple[str, str | None]:
        texts = ["".join(part).strip() for part in self.parts]
        if self.marks in ([":"], [":", ":"]) and _is_number(texts[-1]):
            return texts[-2], "[from:to:when] is drawn as its second text"
        if "|" in self.marks and ":" not in self.marks:
            return ", ".join(text for text in texts if text), "[a|b] is drawn as all of its texts"
        return f"[{self.text()}]", None


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d{1,9}\.?\d{0,9}|\.\d{1,9}", text) is not None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


def tokenize(prompt: str, tokenizer: Any) -> tuple[list[list[int]], list[list[float]]]:  # noqa: ANN401
    """Return the chunks of 75 tokens with their begin and end marks, and the factors of all tokens.

    One chunk to MAX_CHUNKS, the rest is left out (see `cut_note`); BREAK ends one early.
    """
    chunks, weights = _chunked(prompt, tokenizer)
    chunks, weights = chunks[:MAX_CHUNKS], weights[:MAX_CHUNKS]
    return [_framed(chunk, tokenizer) for chunk in chunks], [[1.0, *w, *[1.0] * (CHUNK + 1 - len(w))] for w in weights]


def cut_note(prompt: str, tokenizer: Any) -> str | None:  # noqa: ANN401
    """Return one sentence where `tokenize` leaves out a part of `prompt`, else None."""
    if len(prompt) <= _MAX_CHARACTERS and len(_chunked(prompt, tokenizer)[0]) <= MAX_CHUNKS:
        return None
    return f"a prompt of {len(prompt)} characters is cut to {MAX_CHUNKS} chunks of {CHUNK} tokens"


def _chunked(prompt: str, tokenizer: Any) -> tuple[list[list[int]], list[list[float]]]:  # noqa: ANN401
    """Return the chunks' tokens and factors; where there are more than MAX_CHUNKS, not all of the rest."""
    spans = parse_emphasis(prompt[:_MAX_CHARACTERS])
    chunks = in_chunks(spans, tokenizer)
    tokens = [[token for token, _ in chunk] for chunk in chunks]
    return tokens, [[spans[index].weight for _, index in chunk] for chunk in chunks]


def in_chunks(spans: Sequence[Span], tokenizer: Any) -> list[list[tuple[int, int]]]:  # noqa: ANN401
    """Return the chunks of the tokens of `spans`, each with its span's index; past MAX_CHUNKS not all of them.

    As in the WebUI, what follows a comma that is at most COMMA_REACH tokens before a chunk's end goes into the next.
    """

    def tokens_of(text: str) -> list[int]:
        # split: OpenCLIP's padding mark is "!", which within a prompt is a word as any other
        options = {"add_special_tokens": False, "split_special_tokens": True, "truncation": False, "verbose": False}
        return tokenizer(text, **options).input_ids

    comma = tokens_of(",")
    chunks: list[list[tuple[int, int]]] = [[]]
    after = 0
    """Where in the last chunk what follows its last comma begins; 0: it has none."""
    for index, span in enumerate(spans):
        if len(chunks) > MAX_CHUNKS:
            break
        if span.text is None:
            chunks.append([])
            after = 0
            continue
        for token in tokens_of(span.text):
            if len(chunks[-1]) == CHUNK:
                moves = CHUNK - after < COMMA_REACH and [token] != comma
                chunks.append(chunks[-1][after:] if moves else [])
                chunks[-2] = chunks[-2][:after] if moves else chunks[-2]
                after = 0
            elif [token] == comma:
                after = len(chunks[-1]) + 1
            chunks[-1].append((token, index))
    else:
        if len(chunks) > 1 and not chunks[-1]:
            chunks.pop()  # a BREAK at the end begins none
    return chunks


def _framed(chunk: list[int], tokenizer: Any) -> list[int]:  # noqa: ANN401
    padding = CHUNK - len(chunk)
    return [tokenizer.bos_token_id, *chunk, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * padding]


def encode_prompt(
    prompt: str,
    tokenizer: Any,  # noqa: ANN401
    text_encoder: Any,  # noqa: ANN401
    *,
    chunks: int,
    device: torch.device,
    clip_skip: int | None = None,
    penultimate: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the token states (1, 77 * chunks, width) and the pooled state (1, width) of the first chunk.

    `chunks` pads with empty chunks. `device` is where `text_encoder` runs: offloaded, its weights lie elsewhere.
    `clip_skip` n takes the n-th layer from the end (1: the last), then the final norm, as the WebUI does; `penultimate`
    is SDXL's: without the final norm, and the last but one layer unless `clip_skip` says another. Weighted states keep
    the mean of the chunk's plain ones, as in the WebUI, unless one of the two means is 0. Raises `PictureError` for a
    `clip_skip` above the layers.
    """
    layers = text_encoder.config.num_hidden_layers
    if clip_skip is not None and clip_skip > layers:
        raise PictureError(
            f"clip skip is {clip_skip}; the model's text encoder has {layers} layers, choose 1 to {layers}"
        )
    tokens, weights = tokenize(prompt, tokenizer)
    empty_tokens, empty_weights = tokenize("", tokenizer)
    tokens += empty_tokens * (chunks - len(tokens))
    weights += empty_weights * (chunks - len(weights))
    output = text_encoder(torch.tensor(tokens, device=device), output_hidden_states=True)
    if penultimate:
        states = output.hidden_states[-2 if clip_skip is None else -clip_skip]
    elif clip_skip is None or clip_skip <= 1:
        states = output.last_hidden_state
    else:
        final_norm = getattr(text_encoder, "text_model", text_encoder).final_layer_norm
        states = final_norm(output.hidden_states[-clip_skip])
    if any(weight != 1 for chunk in weights for weight in chunk):
        factors = torch.tensor(weights, device=states.device, dtype=states.dtype)[..., None]
        means = _chunk_means(states)
        states = states * factors
        ratio = (means / _chunk_means(states)).to(states.dtype)
        states = states * ratio.where(ratio.isfinite() & (ratio != 0), 1)  # no factor keeps a mean of 0
    pooled = output.text_embeds if hasattr(output, "text_embeds") else output.pooler_output
    return states.reshape(1, -1, states.shape[-1]), pooled[:1]


def _chunk_means(states: Tensor) -> Tensor:
    """Return the mean of each chunk of `states` (chunks, tokens, width), float32 (chunks, 1, 1)."""
    return torch.stack([chunk.float().mean() for chunk in states])[:, None, None]


def count_chunks(prompt: str, tokenizer: Any) -> int:  # noqa: ANN401
    """Return how many chunks of 75 tokens `prompt` takes."""
    return len(tokenize(prompt, tokenizer)[0])


def is_open_clip(text_encoder: Any) -> bool:  # noqa: ANN401
    """Return whether it is OpenCLIP's (SD2.1), for which the WebUI has no "Clip skip"; told by its activation."""
    return text_encoder.config.hidden_act == "gelu"
