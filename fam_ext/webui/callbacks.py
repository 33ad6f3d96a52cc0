"""Registers everything with the WebUI; called once by each load of the script."""

from __future__ import annotations


def register() -> None:
    """Register FAM Hires' callbacks."""
