"""Whatever a stranger's file holds, the output is written with it, within two seconds; see test_fuzz.py."""

import io
import struct
import zlib

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fam_ext.errors import FamError
from fam_ext.jobs import make
from fam_ext.jobs.contract import Ran, Rendered
from fam_ext.jobs.journal.rows import Item
from fam_ext.jobs.settings import request_for
from fam_ext.metadata import exif, pictures
from fam_ext.metadata.infotext import Infotext, add, format_infotext, parse, undo
from fam_ext.options.job import Job
from tests.jobs.test_fuzz import answered, bounded_memory, fuzz, marks  # noqa: F401  # the fixture
from tests.metadata.files import raw_chunk

SIZE = (16, 16)
MADE = "a cat\nNegative prompt: dark\nSteps: 20, Sampler: Euler a, CFG scale: 6.5, Seed: 5"
FORMATS = [name for name in ("PNG", "JPEG", "WEBP", "TIFF", "BMP") if pictures.can_write(name) is None]
KINDS = (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"iCCP", b"pHYs", b"tIME", b"sRGB", b"gAMA", b"cHRM", b"tRNS", b"prVt")
NAMES = (b"parameters", b"prompt", b"workflow", b"XML:com.adobe.xmp", b"Comment", b"Software", b"Description", b"")


def exif_block() -> bytes:
    block = Image.Exif()
    block[0x0112], block[0x010E], block[0x0131] = 6, "a description", "a program"
    block[0x8769] = {0x9286: exif.encode_comment(MADE), 0x9003: "2020:01:01 00:00:00", 0x927C: b"maker" * 20}
    block[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
    return block.tobytes()


def photo() -> bytes:
    buffer = io.BytesIO()
    profile = b"\x00" * 16 + b"RGB " + b"\x00" * 108
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/' tiff:Orientation='6'>a</x:xmpmeta>"
    image = Image.new("RGB", SIZE, "red")
    image.save(buffer, "JPEG", exif=exif_block(), icc_profile=profile, comment=MADE.encode(), dpi=(300, 300), xmp=xmp)
    return buffer.getvalue()


EXIF, JPEG = exif_block(), photo()


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """Return the bytes with a few of them changed."""
    changes = st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=6)

    def build(places: list[tuple[int, int]], end: int) -> bytes:
        data = bytearray(whole)
        for place, value in places:
            data[place] = value
        return bytes(data[:end])

    return st.builds(build, changes, st.sampled_from([len(whole)] * 9 + [len(whole) // 2]))


words = st.one_of(st.text(marks, max_size=60), st.sampled_from([MADE, MADE + ", Hires upscale: 2", "(" * 500, "{}"]))
raw = st.one_of(
    st.binary(max_size=80),
    words.map(lambda text: text.encode("utf-8", "surrogatepass")),
    damaged(EXIF),
    st.builds(lambda name, text: name + b"\x00" + text.encode("latin-1", "replace"), st.sampled_from(NAMES), words),
    st.builds(
        lambda name, text: name + b"\x00\x00" + zlib.compress(text.encode("utf-8", "replace")),
        st.sampled_from(NAMES),
        words,
    ),
    st.builds(
        lambda name, text: name + b"\x00\x00\x00\x00\x00" + text.encode("utf-8", "surrogatepass"),
        st.sampled_from(NAMES),
        words,
    ),
)
chunks = st.lists(st.builds(raw_chunk, st.sampled_from(KINDS), raw), max_size=5)


def png(extra: list[bytes]) -> bytes:
    head = raw_chunk(b"IHDR", struct.pack(">IIBBBBB", *SIZE, 8, 2, 0, 0, 0))
    body = raw_chunk(b"IDAT", zlib.compress((b"\x00" + bytes(range(48))) * SIZE[1]))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + body + raw_chunk(b"IEND", b"")


@fuzz
@given(st.one_of(chunks.map(png), damaged(JPEG)), st.sampled_from(FORMATS), st.sampled_from([None, MADE, "a .txt"]))
def test_whatever_a_file_says_its_output_is_written(data: bytes, picture_format: str, beside: str | None) -> None:
    options = Job.of(("in",), "out", scale=1)
    try:
        picture = pictures.decode(data)
        found, _ = picture.header.settings()
        request, taken = request_for(found or Infotext(), picture.header.size, options.picture)
    except FamError:
        return  # refused in the plan, or as damaged pixels
    item = Item(1, "a.png", "a.png", request, picture.header.size, picture_format, "a.png", taken, base_text=beside)
    drawn = make.Drawn(Rendered(picture.image, Ran(method="fam")), request, Ran(method="fam"))
    packed = make.pack(make.Loaded(picture, ""), drawn, item, options)
    again = pictures.decode(packed.data)
    assert (again.header.format, again.header.size, again.header.orientation) == (
        picture_format,
        picture.header.size,
        1,
    )
    assert packed.data == make.pack(make.Loaded(picture, ""), drawn, item, options).data
    if picture_format != "BMP":
        told = again.header.infotext
        assert told is not None and parse(told).params["FAM method"] == "fam"


@fuzz
@given(damaged(EXIF), st.one_of(st.none(), words.map(MADE.__add__)), st.booleans(), st.one_of(st.none(), words))
def test_an_exif_block_takes_a_comment(block: bytes, comment: str | None, is_new: bool, kept: str | None) -> None:
    made = exif.with_changes(block, comment=comment, size=(96, 128) if is_new else None, kept=kept)
    assert made.startswith(b"Exif\x00\x00") and len(made) < len(block) + 10_000
    if is_new:
        assert exif.orientation(made) == 1
    if comment and comment.replace("\n", "").isprintable():
        assert (exif.user_comment(made) or "").strip() == comment.strip()


@fuzz
@given(words, st.dictionaries(st.sampled_from(["FAM method", "FAM steps", "Seed"]), words, max_size=3), words)
def test_what_is_added_to_a_text_can_be_taken_away(text: str, fields: dict[str, str], heading: str) -> None:
    made = add(text, {"FAM version": "1", **fields}, settings={"Steps": "3", "Seed": "1"}, heading=heading)
    assert undo(made) == text
    parse(format_infotext(parse(made)))
