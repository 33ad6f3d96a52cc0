"""The methods by name, with what people call them. No torch: planning and help read this list."""

from __future__ import annotations

from collections.abc import Mapping

METHODS: Mapping[str, str] = {
    "fam": "FAM",
    "direct": "direct inference",
    "direct-from-native": "direct, from the diffused native picture",
    "skip-residual": "skip residual",
}
"""Name -> title. FAM first; the others are the paper's comparison rows (DI, DI*, SR)."""
