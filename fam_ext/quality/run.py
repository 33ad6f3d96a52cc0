"""Makes the pictures that are missing and measures those that are not yet. A rerun goes on where it was, and tries what
failed again."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fam_ext import hires, standalone
from fam_ext.errors import Cancelled, OutputError, RenderError
from fam_ext.escapes import sentence
from fam_ext.jobs.contract import Progress
from fam_ext.quality import setting
from fam_ext.quality.extractors import Features
from fam_ext.quality.protocol import Case, Row, fingerprint, load, size_words, truth_file
from fam_ext.quality.ruler import Measured, Ruler
from fam_ext.quality.store import Made, Store
from fam_ext.quality.written import PICTURES, check_places, write_whole
from fam_ext.upscalers import Upscaler

Watch = Callable[[str, float | None], AbstractContextManager[Progress]]
"""Shows the steps of what a label names, and the seconds left for all, where they are known."""

_DEAD_SECONDS = 3600
"""After that a file that is half written is of a run that was killed: another may run in the same folder."""


class Bench:
    """The rows of one protocol in one folder, on one model."""

    def __init__(
        self,
        host: Any,  # noqa: ANN401  # a DiffusersHost
        folder: Path,
        rows: Sequence[Row],
        ruler: Ruler,
        *,
        upscaler: Upscaler | None = None,
    ) -> None:
        self.host, self.folder, self.rows, self.ruler, self.upscaler = host, folder, rows, ruler, upscaler
        self._native: tuple[str, hires.Native] | None = None
        self._failed: dict[str, str] = {}
        """Why there is no native picture, by its name: the sentence alone, since an error holds memory."""
        check_places(folder)
        for left in (folder / PICTURES).glob(".*.part"):
            with contextlib.suppress(OSError):  # another run was faster, or Windows lets nobody
                if time.time() - left.stat().st_mtime > _DEAD_SECONDS:
                    left.unlink()

    def run(
        self, store: Store, *, watch: Watch, tell: Callable[[str, float], None], warn: Callable[[str], None]
    ) -> list[tuple[Row, Made]]:
        """Return the rows with what they measured, without those that failed: `warn` hears of each. `tell` hears a line
        as a picture is made, and the seconds left."""
        todo = sum(self._kept(store, row) is None for row in self.rows)
        found: list[tuple[Row, Made]] = []
        began, done = time.monotonic(), 0
        for row in self.rows:
            kept = self._kept(store, row)
            label = f"{row.label}, {size_words(row.case.size)}, {row.case.stem}"
            left = None
            if kept is None:
                left = (time.monotonic() - began) / done * (todo - done) if done else None
                done += 1
                label = f"{done} of {todo}: {label}"
            try:
                made = self._of(row, kept, watch, label, left)
            except (Cancelled, OutputError):
                raise
            except Exception as error:
                # one picture's fault is that picture's: the others go on
                warn(f"{label} failed: {sentence(error)}")
                continue
            if made is not kept:
                store.put(row, made)
            if kept is None:
                tell(f"{label}: {made.seconds:.1f} s", (time.monotonic() - began) / done * (todo - done))
            found.append((row, made))
        return found

    def _of(self, row: Row, kept: Made | None, watch: Watch, label: str, left: float | None) -> Made:
        """Return `kept` where it was measured by this ruler; else it is measured again, or made."""
        if kept is None:
            return self._make(row, watch, label, left)
        if kept.ruler == self.ruler.fingerprint(row.case):
            return kept
        ruler, measured = self._measured(row, load(self._path(row)), watch)
        return dataclasses.replace(kept, ruler=ruler, measured=measured)

    def _kept(self, store: Store, row: Row) -> Made | None:
        """Return what is known of a row whose picture is there."""
        return store.get(row.fingerprint) if self._path(row).is_file() else None

    def _path(self, row: Row) -> Path:
        return self.folder / PICTURES / row.file

    def _make(self, row: Row, watch: Watch, label: str, left: float | None) -> Made:
        native = self._native_of(row, watch)
        with watch(label, left) as progress:
            made = standalone.render_on(self.host, native, row.request, progress, upscaler=self.upscaler)
        write_whole(self._path(row), _png(made.image))
        picture = np.asarray(made.image.convert("RGB"))
        ruler, measured = self._measured(row, picture, watch)
        where = setting.machine(self.host), setting.libraries()
        return Made(made.ran.seconds, made.ran.peak_memory, ruler, measured, *where)

    def _measured(self, row: Row, picture: Any, watch: Watch) -> tuple[str, Measured]:  # noqa: ANN401
        """Return the ruler's fingerprint and what it read."""
        path = self._native_path(row)
        if not path.is_file():
            self._native_of(row, watch)
        return self.ruler.fingerprint(row.case), self.ruler.measure(picture, load(path), row.case)

    def _native_of(self, row: Row, watch: Watch) -> hires.Native:
        """Return the native picture of a row's case with its recorded run, made once for all methods in turn."""
        path = self._native_path(row)
        if path.name in self._failed:
            raise RenderError(self._failed[path.name])
        if self._native is None or self._native[0] != path.name:
            try:
                with watch(f"native {size_words(row.case.native)}, {row.case.stem}", None) as progress:
                    native = standalone.native_on(self.host, row.request, progress, size=row.case.native)
            except Exception as error:
                self._failed[path.name] = f"its native picture: {sentence(error)}"
                raise
            self._native = path.name, native
            if not path.is_file():
                write_whole(path, _png(native.image))
        return self._native[1]

    def _native_path(self, row: Row) -> Path:
        return self.folder / PICTURES / native_file(row)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def native_file(row: Row) -> str:
    """Return the name of the native picture that a row begins from: the same for every method, size and dial."""
    words = {name: value for name, value in row.request.to_json().items() if name not in ("method", "config", "size")}
    mark = fingerprint(words, row.surroundings)
    return f"{row.case.stem}-native-{size_words(row.case.native)}-{mark[:8]}.png"


def true_features(
    ruler: Ruler, cases: Sequence[Case], references: Sequence[Path] | None
) -> Mapping[Case, dict[str, Features]] | Sequence[dict[str, Features]]:
    """Return the features of the pictures that sets are held against: of `references`, else of each case's true
    picture; none where there are neither."""
    if references is not None:
        return [ruler.features(load(path), number) for number, path in enumerate(references)]
    if ruler.truth is None:
        return {}
    return {case: ruler.features(load(truth_file(ruler.truth, case)), case.seed) for case in dict.fromkeys(cases)}
