"""The words of a prompt one by one: where each is among the text encoder's states, and the prompt with some of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from fam_ext.core.schedule import Size
from fam_ext.hosts.base import Prompt
from fam_ext.hosts.diffusers.prompts import CHUNK, Span, in_chunks, parse_emphasis
from fam_ext.hosts.sites import Site
from fam_ext.hosts.steering import Steering
from fam_ext.methods.base import OFF, Condition


def split_words(prompt: str) -> list[Span]:
    """Return the words of `prompt`, between spaces, with the factors on their tokens; a BREAK is one, with no text."""
    return [
        Span(word, span.weight)
        for span in parse_emphasis(prompt)
        for word in ([None] if span.text is None else span.text.split())
    ]


def places(words: Sequence[Span], tokenizer: Any) -> list[list[int]]:  # noqa: ANN401
    """Return the indices of each word's tokens among the states of `prompts.encode_prompt`."""
    found: list[list[int]] = [[] for _ in words]
    for number, chunk in enumerate(in_chunks(words, tokenizer)):
        for inside, (_, word) in enumerate(chunk, 1):  # each chunk begins with a mark
            found[word].append(number * (CHUNK + 2) + inside)
    return found


def with_only(words: Sequence[Span], kept: Collection[int]) -> str:
    """Return the prompt that has of `words` those at the indices `kept`, with their factors. A BREAK stays."""
    return " ".join(_written(word) for index, word in enumerate(words) if word.text is None or index in kept)


def _written(word: Span) -> str:
    if word.text is None:
        return "BREAK"
    plain = "".join(f"\\{mark}" if mark in "()[]\\" else mark for mark in word.text)
    return plain if word.weight == 1 else f"({plain}:{word.weight:g})"


class PromptWords:
    """See `methods.base.Words`: those of `prompts`, whose rows `given` makes a condition of."""

    def __init__(
        self,
        prompts: Sequence[Prompt],
        tokenizer: Any,  # noqa: ANN401
        given: Callable[[tuple[Prompt, ...]], Condition],
    ) -> None:
        self._prompts = prompts
        self._tokenizer = tokenizer
        self._given = given

    def of(self, picture: int) -> list[list[int]]:
        return places(split_words(self._prompts[picture].positive), self._tokenizer)

    def only(self, kept: Mapping[int, Collection[int]], /) -> Condition:
        prompts = [
            replace(prompt, positive=with_only(split_words(prompt.positive), kept[picture]))
            if picture in kept
            else prompt
            for picture, prompt in enumerate(self._prompts)
        ]
        return self._given(tuple(prompts))


@contextmanager
def watched(sites: Sequence[Site], steering: Steering) -> Generator[None, None, None]:
    """While open, the cross-attention layers at `sites` show the running pass their queries and keys."""
    with ExitStack() as undo:
        for site in sites:
            watcher = _Watcher(site.name, steering)
            for module, look in ((site.transformer, watcher.read_grid), (site.attention, watcher.look)):
                undo.callback(module.register_forward_pre_hook(look, with_kwargs=True).remove)
        yield


class _Watcher:
    """What looks at one cross-attention layer."""

    def __init__(self, name: str, steering: Steering) -> None:
        self.name = name
        self.steering = steering
        self.grid: Size = (0, 0)

    def read_grid(self, module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        hidden_states = args[0] if args else kwargs["hidden_states"]
        self.grid = (hidden_states.shape[-2], hidden_states.shape[-1])

    def look(self, module: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:  # noqa: ANN401
        words = kwargs.get("encoder_hidden_states")
        if self.steering.phase == OFF or words is None:
            return
        hidden_states = args[0] if args else kwargs["hidden_states"]
        q, k = (
            projection(states).unflatten(-1, (module.heads, -1)).transpose(1, 2)
            for projection, states in ((module.to_q, hidden_states), (module.to_k, words))
        )
        self.steering.ask(self.name, q, k, size=self.grid, scale=module.scale)
