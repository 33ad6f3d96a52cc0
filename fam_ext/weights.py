"""The hash by which a model's weights are known: the WebUI's own for a checkpoint."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from fam_ext.errors import UnsupportedModelError

_PIECE = 1 << 20


def weights_hash(source: Path) -> str:
    """Return the SHA-256 of a checkpoint, or of a diffusers folder's `*/*.safetensors` one after the other; 64
    hexadecimal digits. Memory is bounded. Read once, until a file's path, size or time changes. Raises
    `UnsupportedModelError` where there are no weights."""
    files: list[Path] = [source] if source.is_file() else sorted(source.glob("*/*.safetensors"))
    if not files:
        raise UnsupportedModelError(f"{source} has no .safetensors weights; give a checkpoint or a diffusers folder")
    return _hash(tuple((file, status.st_size, status.st_mtime_ns) for file in files for status in [file.stat()]))


@functools.lru_cache(maxsize=64)
def _hash(files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for file, _, _ in files:
        with file.open("rb") as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
    return digest.hexdigest()
