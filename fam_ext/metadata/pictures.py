"""Picture files: header and metadata without decoding pixels; decode upright; save with everything that was there."""

from __future__ import annotations

from fam_ext.metadata.decoding import Picture, decode
from fam_ext.metadata.files import MAX_FILE_BYTES, read_file
from fam_ext.metadata.formats import (
    FORMATS,
    MAX_SIDE,
    PLUGINS,
    PREFERRED_SUFFIX,
    SUFFIXES,
    can_write,
    format_of,
)
from fam_ext.metadata.header import Header, PngText
from fam_ext.metadata.reading import DEFAULT_MAX_PIXELS, read_header
from fam_ext.metadata.writing import Encoded, encode

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "FORMATS",
    "MAX_FILE_BYTES",
    "MAX_SIDE",
    "PLUGINS",
    "PREFERRED_SUFFIX",
    "SUFFIXES",
    "Encoded",
    "Header",
    "Picture",
    "PngText",
    "can_write",
    "decode",
    "encode",
    "format_of",
    "read_file",
    "read_header",
]
