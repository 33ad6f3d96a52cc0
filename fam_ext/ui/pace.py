"""How long pictures took in this session, and how much memory: what the page says of the next one. No gradio."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Pace:
    """What the last pictures took, by target (height, width)."""

    _seconds: dict[tuple[int, int], float] = field(default_factory=dict[tuple[int, int], float])
    """Seconds for one step at that size."""
    _bytes: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])

    def note(self, size: tuple[int, int], *, steps: float, seconds: float, peak: int | None) -> None:
        """Remember a picture that was made."""
        self._seconds.pop(size, None)
        self._seconds[size] = seconds / max(1.0, steps)  # the newest last
        if peak is not None:
            self._bytes[size] = peak

    def seconds(self, size: tuple[int, int], *, steps: float) -> float | None:
        """Return what a picture would take: as the last of its size, else by pixels as the last one; None at first."""
        if not self._seconds:
            return None
        known = size if size in self._seconds else next(reversed(self._seconds))
        return self._seconds[known] * max(1.0, steps) * (size[0] * size[1]) / (known[0] * known[1])

    def peak(self, size: tuple[int, int]) -> int | None:
        """Return the most bytes that a picture of this size held; None where none was made."""
        return self._bytes.get(size)
