"""The walk: which files a job reads, in which order. It reads folders, opens no file, and never leaves its inputs.

Links to folders are followed only inside their input folder. Links to files are followed wherever they lead (people
collect pictures that way), save into the output, and save out of `allowed` where that is given.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fam_ext.errors import PictureError, UsageError
from fam_ext.escapes import shown
from fam_ext.metadata import pictures
from fam_ext.metadata.files import is_link

STATE_FOLDER = ".fam-hires"
HIDDEN = "hidden"
NO_FILES = "pipes, sockets or devices"
LINKS = "links that lead outside the input folder or into the output"
_FOREIGN_FOLDERS = ("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found")
_FOREIGN_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")
_BESIDE = (".txt", ".TXT")
"""Endings of the text that is read beside a picture; the first that is there."""
_MAX_NAMED = 8
_NUMBERS = re.compile(r"([0-9]+)")
_MAX_SORTED = 1024

Identity = tuple[int, int]
"""Device and inode: one file or folder, whatever its names."""


OUTSIDE = "it is a link that leads outside the allowed folders; put the picture itself there"


class Places(Protocol):
    """What the walk needs of a job's options."""

    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def output(self) -> str: ...
    @property
    def recursive(self) -> bool: ...
    @property
    def include(self) -> tuple[str, ...]: ...
    @property
    def exclude(self) -> tuple[str, ...]: ...
    @property
    def allowed(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Candidate:
    """A file that the walk found, before its header is read."""

    key: str
    """Its place below the inputs, with /; unique in the job, and independent of where the inputs lie."""
    path: str
    """A plain string: a hundred thousand of them are walked."""
    size: int = 0
    mtime_ns: int = 0
    sidecar: Path | None = None
    sidecar_mark: str = ""
    problem: str | None = None


def left_out_line(left_out: Counter[str]) -> str:
    """Return what a walk left out as "3 left out: .gif, .psd, 1 hidden", "" for nothing."""
    kinds = sorted(what for what, number in left_out.items() if what.startswith(".") and number)
    named = kinds[:_MAX_NAMED] + ([f"{len(kinds) - _MAX_NAMED} more kinds"] if len(kinds) > _MAX_NAMED else [])
    others = [f"{number} {what}" for what, number in left_out.items() if not what.startswith(".") and number]
    total = sum(left_out.values())
    return f"{total} left out: {', '.join((*named, *others))}" if total else ""


def natural_key(name: str) -> tuple[list[Any], str]:
    """Return a sort key that puts 2 before 10, and never fails."""
    # texts at even places, numbers at odd ones: equal places always compare; a file name cannot hold more digits
    parts: list[Any] = _NUMBERS.split(name.casefold()[:_MAX_SORTED])
    parts[1::2] = map(int, parts[1::2])
    return parts, name


def check_places(places: Places) -> None:
    """Raise `UsageError` when an input is missing, the output cannot be one, or it and an input folder lie one inside
    the other."""
    for entry in places.inputs:
        if not os.path.lexists(entry):
            raise UsageError(f"input {shown(entry)} does not exist; check the path")
    output = os.path.realpath(places.output)  # often named after the input
    try:
        if not stat.S_ISDIR(os.stat(output).st_mode):
            raise UsageError(f"output {shown(places.output)} is a file; choose a folder")
    except FileNotFoundError:
        pass
    except OSError as error:  # a name that is too long, links in a circle
        what = f"cannot be used ({error.strerror}); choose another folder"
        raise UsageError(f"output {shown(places.output)} {what}") from None
    for entry in places.inputs:
        if os.path.isdir(entry) and is_within(output, entry):
            raise UsageError(
                f"output {shown(places.output)} lies inside the input {shown(entry)}; choose a folder outside it"
            )
        if os.path.isdir(entry) and is_within(entry, output):
            raise UsageError(
                f"input {shown(entry)} lies inside the output {shown(places.output)}; choose an output beside it"
            )


def check_any(places: Places, *, said_by: str = "pattern", choose: str = "*.png") -> None:
    """Raise `UsageError` when the walk finds nothing; `said_by` is what the door calls `include`."""
    left_out: Counter[str] = Counter()
    given = ", ".join(map(shown, places.inputs))
    if next(walk(places, left_out), None) is not None:
        return
    if places.include:
        patterns = shown(", ".join(places.include))
        raise UsageError(f"{said_by} is {patterns}, which no picture in {given} matches; choose {choose}")
    line = left_out_line(left_out)
    more = "" if places.recursive else ", or take the folders inside too"
    raise UsageError(f"input is {given}, which holds no picture{line and f' ({line})'}; choose another folder{more}")


def is_within(path: str | Path, root: str | Path) -> bool:
    """Return whether `path` is `root` or lies below it: links resolved, and by identity where names may differ (case,
    mounts)."""
    real, top = os.path.realpath(path), os.path.realpath(root)
    if real == top or real.startswith(top.rstrip(os.sep) + os.sep):
        return True
    wanted = identity(top)
    place = Path(real)
    return wanted is not None and any(identity(parent) == wanted for parent in (place, *place.parents))


def identity(path: str | Path) -> Identity | None:
    """Return which file or folder a path leads to, or None where there is none or the system cannot tell."""
    try:
        return _identity(os.stat(path))
    except (OSError, ValueError):
        return None


def _identity(status: os.stat_result) -> Identity | None:
    return (status.st_dev, status.st_ino) if status.st_ino else None


def walk(places: Places, left_out: Counter[str] | None = None) -> Iterator[Candidate]:
    """Yield the job's files in natural order; a folder that cannot be read yields one candidate with a problem. A file
    that is an input itself is no part of its folder, and comes once.

    The same folders give the same files each time, whatever an earlier run wrote. Hidden files and folders (a name
    that begins with a dot) and other systems' droppings are left out, unless named as an input; `left_out` counts
    hidden pictures, refused links, and by suffix the kinds that are not taken.
    """
    walker = _Walk(places, Counter() if left_out is None else left_out)
    several = len(places.inputs) > 1
    labels: dict[str, int] = {}
    inputs = [(path, None if os.path.isdir(path) else _place(path)) for path in map(Path, places.inputs)]
    walker.named.update(place for _, place in inputs if place is not None)
    given: set[str] = set()
    for path, place in inputs:
        if place is None:
            label = _label(os.path.basename(os.path.realpath(path)) or "root", labels) if several else ""
            yield from walker.folder(path, label)
        elif place not in given:
            given.add(place)
            label = _label(path.name, labels)
            if walker.wanted(path.name):
                yield walker.single(path, label)


def _label(name: str, labels: dict[str, int]) -> str:
    """Return `name`, or the first numbered form of it that no earlier input has: a, a-2, and a-2-2 for a real a-2.

    `labels` holds those that are taken, each with the last number that was given to its name.
    """
    label, number = name, labels.get(name, 1)
    while label in labels:
        number += 1
        label = numbered(name, number)
    labels[name] = number
    labels.setdefault(label, 1)
    return label


def numbered(key: str, number: int) -> str:
    """Return a key with a number before its suffix: sub/a-2.png."""
    folder, slash, name = key.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    return folder + slash + (f"{stem}-{number}.{suffix}" if dot else f"{name}-{number}")


def _place(path: Path) -> str:
    """Return where a file lies, by one name whichever way leads to its folder; a link to a file has its own."""
    return os.path.normcase(os.path.join(os.path.realpath(path.parent), path.name))


def is_allowed(path: str | Path, places: Places) -> bool:
    """Return whether `path`, links followed, lies in one of the folders that may be read."""
    return not places.allowed or any(is_within(path, folder) for folder in places.allowed)


def check_allowed(path: str | Path, places: Places) -> None:
    """Raise `PictureError` where `path`, links followed, lies outside the folders that may be read."""
    if not is_allowed(path, places):
        raise PictureError(OUTSIDE)


def others(places: Places, keys: set[str]) -> str | None:
    """Return how many files and folders of the input folder are no part of the job, and the first names; None where
    there are none. Texts beside a picture are a part of it."""
    source = places.inputs[0]
    stems = {key.rpartition(".")[0] for key in keys}
    names: list[str] = []
    for place, folders, files in os.walk(source) if os.path.isdir(source) else ():
        below = os.path.relpath(place, source).replace(os.sep, "/")
        prefix = "" if below == "." else f"{below}/"
        for name in files:
            stem, _, ending = (prefix + name).rpartition(".")
            if prefix + name not in keys and not (ending.lower() == "txt" and stem in stems):
                names.append(prefix + name)
        if not places.recursive:
            names += [f"{name}/" for name in folders]
            break
    if not names:
        return None
    shown_names = ", ".join(shown(name) for name in sorted(names, key=natural_key)[:_MAX_NAMED])
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return f"{len(names)} left out ({shown_names}{more})"


class _Walk:
    """One walk over the inputs: what it has seen, and what it leaves out."""

    def __init__(self, places: Places, left_out: Counter[str]) -> None:
        self.places = places
        self.left_out = left_out
        self.seen: set[Identity] = set()
        self.named: set[str] = set()
        """Places of the files that are inputs themselves."""

    def single(self, path: Path, key: str) -> Candidate:
        try:
            status = path.stat()
        except OSError as error:
            return Candidate(key, str(path), problem=_os_sentence("file", error))
        if not stat.S_ISREG(status.st_mode):
            return Candidate(key, str(path), problem="it is not a regular file; choose a picture file")
        texts = (text for text in map(path.with_suffix, _BESIDE) if text != path and os.path.exists(text))
        return self._with_sidecar(key, str(path), status, next(texts, None))

    def folder(self, root: Path, label: str) -> Iterator[Candidate]:
        # links come last: a folder's files are listed at its own place, whichever links lead there
        links: list[tuple[Path, str]] = []
        yield from self._tree(root, label, links)
        while links:
            place, key = links.pop(0)
            if is_within(place, root) and not is_within(place, self.places.output):
                yield from self._tree(place, key, links)
            else:
                self.left_out[LINKS] += 1

    def _tree(self, top: Path, label: str, links: list[tuple[Path, str]]) -> Iterator[Candidate]:
        output = identity(self.places.output)
        stack: list[tuple[Path, str]] = [(top, label)]
        while stack:
            place, label = stack.pop()
            try:
                found = _identity(place.stat())
                if found is not None and (found in self.seen or found == output):
                    continue  # a link that leads back, a folder given twice, the output under another name
                if found is not None:
                    self.seen.add(found)
                with os.scandir(place) as listing:
                    entries = list(listing)
            except OSError as error:
                yield Candidate(f"{label}/" if label else "./", str(place), problem=_os_sentence("folder", error))
                continue
            names = {entry.name for entry in entries}
            real = os.path.realpath(place) if self.named else ""
            entries.sort(key=lambda entry: natural_key(entry.name))
            inner: list[tuple[Path, str]] = []
            for entry in entries:
                key = f"{label}/{entry.name}" if label else entry.name
                if self.named and os.path.normcase(os.path.join(real, entry.name)) in self.named:
                    continue
                is_picture = pictures.format_of(entry.name) is not None
                if entry.name.startswith("."):
                    self.left_out[HIDDEN] += is_picture
                    continue
                if entry.name.casefold() in (*_FOREIGN_FOLDERS, *_FOREIGN_FILES):
                    continue  # other systems' droppings: thumbnails, bins, settings of a file manager
                if is_picture:
                    candidate, is_folder = self._candidate(entry, key, names)
                    if candidate is not None:
                        yield candidate
                    if not is_folder:
                        continue
                is_folder = _is_dir(entry)
                if self.places.recursive and is_folder:
                    (links if is_link(entry.path) else inner).append((Path(entry.path), key))
                elif not is_folder and not is_picture and self.wanted(key):
                    kind = os.path.splitext(entry.name)[1].lower()
                    self.left_out[shown(kind[:20]) or "without a suffix"] += kind not in _BESIDE
            stack.extend(reversed(inner))

    def _candidate(self, entry: os.DirEntry[str], key: str, names: set[str]) -> tuple[Candidate | None, bool]:
        """Return the file as a candidate, if it is one, and whether it is a folder with a picture's name."""
        try:
            status = entry.stat()
        except OSError as error:
            problem = _os_sentence("file", error)
            return (Candidate(key, entry.path, problem=problem) if self.wanted(key) else None), False
        if not stat.S_ISREG(status.st_mode):
            is_folder = stat.S_ISDIR(status.st_mode)
            self.left_out[NO_FILES] += not is_folder
            return None, is_folder
        if not self.wanted(key):
            return None, False
        if entry.is_symlink():
            if is_within(entry.path, self.places.output):
                self.left_out[LINKS] += 1
                return None, False
            if not self._is_allowed(entry.path):
                return Candidate(key, entry.path, problem=OUTSIDE), False
        stem = entry.name[: entry.name.rfind(".")]
        texts = (Path(entry.path).with_name(text) for text in (stem + end for end in _BESIDE) if text in names)
        return self._with_sidecar(key, entry.path, status, next(texts, None)), False

    def _with_sidecar(self, key: str, path: str, status: os.stat_result, sidecar: Path | None) -> Candidate:
        mark = ""
        try:
            found = sidecar.stat() if sidecar is not None else None
        except OSError:
            found = None
        if found is None or sidecar is None or not stat.S_ISREG(found.st_mode) or not self._is_allowed(sidecar):
            sidecar = None
        else:
            mark = f"{found.st_size}-{found.st_mtime_ns}"
        return Candidate(key, path, status.st_size, _mtime(status), sidecar, mark)

    def _is_allowed(self, path: str | Path) -> bool:
        return is_allowed(path, self.places)

    def wanted(self, key: str) -> bool:
        name = key.rsplit("/", 1)[-1]

        def matches(patterns: tuple[str, ...]) -> bool:
            return any(fnmatch.fnmatch(key, pattern) or fnmatch.fnmatch(name, pattern) for pattern in patterns)

        return (not self.places.include or matches(self.places.include)) and not matches(self.places.exclude)


def _mtime(status: os.stat_result) -> int:
    """Return the time in ns as the journal holds it: 64 bits end in the year 2262."""
    return max(-(1 << 63), min((1 << 63) - 1, status.st_mtime_ns))


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _os_sentence(what: str, error: OSError) -> str:
    reason = error.strerror or type(error).__name__
    return f"the {what} cannot be read ({reason}); check that it exists and its permissions"
