"""Picture files: what was in them is in them afterwards, per format; damage gives one sentence."""

import io
import struct
import sys
import zlib
from pathlib import Path

import piexif
import piexif.helper
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from fam_ext.core.config import FamConfig
from fam_ext.errors import PictureError
from fam_ext.jobs.plan import plan_file
from fam_ext.jobs.walk import walk
from fam_ext.metadata.containers import MAX_READ
from fam_ext.metadata.infotext import add, parse, to_fields, undo
from fam_ext.metadata.pictures import (
    PREFERRED_SUFFIX,
    Header,
    can_write,
    decode,
    encode,
    format_of,
    read_header,
)
from fam_ext.options.job import Job
from tests.metadata.files import SRGB, WRITABLE, file_of, picture

INFOTEXT = 'a "cat", ünï 猫\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 24x16'
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'


def exif_block(orientation: int = 1, comment: str | None = INFOTEXT) -> bytes:
    inner = {} if comment is None else {piexif.ExifIFD.UserComment: piexif.helper.UserComment.dump(comment, "unicode")}
    zeroth = {piexif.ImageIFD.Orientation: orientation, piexif.ImageIFD.Make: b"Camera"}
    return piexif.dump({"0th": zeroth, "Exif": {**inner, piexif.ExifIFD.ISOSpeedRatings: 200}})


def with_xmp(jpeg: bytes) -> bytes:
    """Put an XMP segment into a JPEG; Pillow writes one only from 11 on."""
    payload = b"http://ns.adobe.com/xap/1.0/\x00" + XMP
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


@pytest.mark.parametrize("target", WRITABLE)
def test_infotext_survives_and_is_undone(target: str) -> None:
    if target == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_text("parameters", INFOTEXT)
        data = file_of("PNG", pnginfo=info)
    elif target == "BMP":
        data = file_of("BMP")
    else:
        data = file_of(target, exif=exif_block())
    loaded = decode(data)
    if target != "BMP":
        assert loaded.header.infotext == INFOTEXT
    text = add(loaded.header.infotext, to_fields(FamConfig(start=0.7)), settings={"Steps": "30", "Sampler": "DDIM"})
    big = loaded.image.resize((48, 32))
    encoded = encode(big, target, origin=loaded.header, infotext=text)
    again = read_header(encoded.data)
    assert again.format == target
    assert again.size == (32, 48)
    if target == "BMP":
        assert encoded.notes == () or "BMP" in encoded.notes[0]
        return
    assert again.infotext == text
    assert undo(again.infotext) == INFOTEXT
    assert parse(again.infotext).params["FAM start"] == "0.7"
    assert encode(big, target, origin=loaded.header, infotext=text).data == encoded.data


@pytest.mark.parametrize("target", [name for name in WRITABLE if name != "BMP"])
def test_exif_icc_xmp_dpi_stay_and_orientation_is_reset(target: str) -> None:
    data = with_xmp(file_of("JPEG", exif=exif_block(6), icc_profile=SRGB, dpi=(300, 300), quality=95))
    loaded = decode(data)
    assert loaded.header.orientation == 6
    assert loaded.header.size == (24, 16)
    assert loaded.image.size == (16, 24)
    encoded = encode(loaded.image, target, origin=loaded.header, infotext=INFOTEXT)
    image = Image.open(io.BytesIO(encoded.data))
    tags = image.getexif()
    assert tags.get(0x0112, 1) == 1
    assert tags[0x010F] == "Camera"
    assert tags.get_ifd(0x8769)[0x8827] == 200
    assert image.info["icc_profile"] == SRGB
    header = read_header(encoded.data)
    assert header.infotext == INFOTEXT
    if target in ("PNG", "JPEG", "TIFF"):
        assert header.dpi == pytest.approx((300, 300), abs=0.5)
    assert header.xmp == XMP.replace(b'"6"', b'"1"')


@pytest.mark.parametrize("target", [name for name in WRITABLE if name != "BMP"])
@pytest.mark.parametrize("infotext", [None, INFOTEXT], ids=["alone", "with ours"])
@pytest.mark.parametrize("tail", [0, 4])
def test_exif_tells_the_new_picture_s_sides_and_no_old_thumbnail(target: str, infotext: str | None, tail: int) -> None:
    sides = {
        piexif.ExifIFD.PixelXDimension: 24,
        piexif.ExifIFD.PixelYDimension: 16,
        piexif.ExifIFD.ISOSpeedRatings: 200,
    }
    zeroth = {piexif.ImageIFD.Orientation: 6, piexif.ImageIFD.ImageWidth: 24, piexif.ImageIFD.ImageLength: 16}
    first = {piexif.ImageIFD.Compression: 6}
    block = piexif.dump({"0th": zeroth, "Exif": sides, "1st": first, "thumbnail": file_of("JPEG", picture(12, 8))})
    thumbnail = piexif.load(block)["thumbnail"]
    block += bytes(tail)
    assert thumbnail in block
    loaded = decode(file_of("JPEG", exif=block))
    encoded = encode(loaded.image.resize((32, 48)), target, origin=loaded.header, infotext=infotext)
    again = read_header(encoded.data)
    tags = Image.open(io.BytesIO(encoded.data)).getexif()
    inner = tags.get_ifd(0x8769)
    assert (inner[0xA002], inner[0xA003], inner[0x8827]) == (32, 48, 200)
    assert [tags.get(0x0100, 32), tags.get(0x0101, 48), tags.get(0x0112, 1)] == [32, 48, 1]
    if target != "TIFF":  # whose next table would be a page
        assert piexif.load(again.exif)["thumbnail"] is None and piexif.load(again.exif)["1st"] == {}
        assert thumbnail not in encoded.data
    assert (again.infotext, again.frames) == (infotext, 1)


def test_jpeg_and_webp_comment_is_what_the_webui_reads() -> None:
    for target in ("JPEG", "WEBP"):
        encoded = encode(picture(), target, infotext=INFOTEXT)
        block = piexif.load(Image.open(io.BytesIO(encoded.data)).info["exif"])
        assert piexif.helper.UserComment.load(block["Exif"][piexif.ExifIFD.UserComment]) == INFOTEXT


@pytest.mark.parametrize("target", [name for name in WRITABLE if name not in ("BMP", "TIFF")])
@pytest.mark.parametrize("own", [INFOTEXT, "a beach", '{"sui_image_params": {"prompt": "a beach"}}'])
def test_the_webui_reads_the_comment_of_a_turned_picture(target: str, own: str) -> None:
    """Pillow writes a comment as numbers (kind 1), and an AVIF's whole block anew where it has an orientation."""
    turned = Image.Exif()
    turned[0x0112] = 6
    turned.get_ifd(0x8769)[0x9286] = piexif.helper.UserComment.dump(own, "unicode")
    origin = read_header(file_of("JPEG", exif=turned.tobytes()))
    encoded = encode(picture(), target, origin=origin, infotext=INFOTEXT)
    block = piexif.load(Image.open(io.BytesIO(encoded.data)).info["exif"])
    told = own if (own, target) == ("a beach", "PNG") else INFOTEXT  # words stay, other settings would hide ours
    assert piexif.helper.UserComment.load(block["Exif"][piexif.ExifIFD.UserComment]) == told
    assert read_header(encoded.data).orientation == 1 and block["0th"].get(274, 1) == 1


def test_alpha_on_jpeg_is_named() -> None:
    loaded = decode(file_of("PNG", picture(mode="RGBA")))
    assert "transparency" in encode(loaded.image, "JPEG", alpha=loaded.alpha).notes[0]


def test_all_png_texts_stay_also_after_the_pixels() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", INFOTEXT)
    info.add_text("workflow", '{"nodes": []}')
    info.add_itxt("Title", "Tïtle", "de", "Titel")
    info.add_text("Comment", "packed " * 50, zip=True)
    data = file_of("PNG", pnginfo=info)
    late = b"Late\x00after the pixels"
    chunk = struct.pack(">I", len(late)) + b"tEXt" + late + struct.pack(">I", zlib.crc32(b"tEXt" + late))
    data = data[:-12] + chunk + data[-12:]
    header = read_header(data)
    assert {entry.key for entry in header.texts} == {"parameters", "workflow", "Title", "Comment", "Late"}
    out = read_header(encode(picture(), "PNG", origin=header, infotext="new text").data)
    assert out.infotext == "new text"
    assert [entry for entry in out.texts if entry.key != "parameters"] == [
        entry for entry in header.texts if entry.key != "parameters"
    ]
    notes = encode(picture(), "JPEG", origin=header, infotext="new").notes
    assert "workflow" in notes[0]


def test_strip_keeps_pixels_and_profile_only() -> None:
    header = decode(with_xmp(file_of("JPEG", exif=exif_block(), icc_profile=SRGB, dpi=(300, 300)))).header
    for target in WRITABLE:
        out = read_header(encode(picture(), target, origin=header, infotext=INFOTEXT, strip=True).data)
        assert (out.infotext, out.xmp) == (None, None)
        if out.exif is not None:
            assert b"Camera" not in out.exif


def test_comfy_graph_is_found() -> None:
    graph = (
        '{"3": {"class_type": "KSampler", "inputs": {"seed": 8566257, "steps": 20, "cfg": 8, "sampler_name": '
        '"dpmpp_2m", "scheduler": "karras", "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0]}},'
        '"4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "dir/v1-5.safetensors"}},'
        '"6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a bottle"}},'
        '"7": {"class_type": "CLIPTextEncode", "inputs": {"text": ["8", 0]}},'
        '"8": {"class_type": "PrimitiveString", "inputs": {"value": "blurry"}}}'
    )
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", graph)
    found, source = read_header(file_of("PNG", pnginfo=info)).settings()
    assert source == "comfyui"
    assert (found.prompt, found.negative_prompt) == ("a bottle", "blurry")
    assert found.params == {
        "Steps": "20",
        "CFG scale": "8",
        "Seed": "8566257",
        "Sampler": "DPM++ 2M",
        "Schedule type": "Karras",
        "Model": "v1-5",
    }


def test_a_cyclic_comfy_graph_ends() -> None:
    graph = '{"1": {"class_type": "KSampler", "inputs": {"positive": ["1", 0], "model": ["1", 0], "seed": ["1", 0]}}}'
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", graph)
    assert read_header(file_of("PNG", pnginfo=info)).settings()[0] is not None


def test_a_bomb_is_refused_before_its_pixels() -> None:
    header = struct.pack(">IIBBBBB", 50000, 50000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", 0)
    with pytest.raises(PictureError, match="2500 MP, more than the limit of 64 MP"):
        read_header(data)
    bomb = b"Comment\x00\x00" + zlib.compress(b"a" * (64 << 20))
    text = struct.pack(">I", len(bomb)) + b"zTXt" + bomb + struct.pack(">I", 0)
    small = file_of("PNG")
    assert read_header(small[:33] + text + small[33:]).texts == ()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"hello, this is text", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"GIF89a" + b"\x00" * 20, "not a picture"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, says: str) -> None:
    with pytest.raises(PictureError, match=says):
        decode(data)


@pytest.mark.parametrize("lenient_host", [False, True])
@pytest.mark.parametrize("target", WRITABLE)
def test_truncated_files_never_decode(target: str, lenient_host: bool, monkeypatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient_host)
    data = file_of(target, picture(64, 64), **({"exif": exif_block()} if target in ("JPEG", "WEBP", "AVIF") else {}))
    for end in range(0, len(data) - 40, 10 if len(data) < 3000 else 97):
        with pytest.raises(PictureError) as raised:
            decode(data[:end])
        assert "\n" not in str(raised.value)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient_host


def test_damaged_exif_is_not_fatal() -> None:
    good = exif_block()
    for index in range(6, len(good), 3):
        block = good[:index] + b"\xff" + good[index + 1 :]
        header = read_header(file_of("PNG", exif=block))
        encode(picture(), "JPEG", origin=header, infotext=INFOTEXT)
    for end in range(6, len(good), 5):
        out = encode(picture(), "JPEG", origin=read_header(file_of("PNG", exif=good[:end])), infotext=INFOTEXT)
        assert read_header(out.data).infotext == INFOTEXT


def test_animated_files_are_refused() -> None:
    frames = [picture(), picture().rotate(180)]
    with pytest.raises(PictureError, match="2 frames"):
        read_header(file_of("WEBP", frames[0], save_all=True, append_images=frames[1:]))


@pytest.mark.parametrize(("kind", "frames"), [(0, 2), (1, 1)])
def test_a_tiff_s_preview_is_no_page(kind: int, frames: int) -> None:
    preview = picture(6, 4)
    preview.encoderinfo = {"tiffinfo": {254: kind}}
    data = file_of("TIFF", save_all=True, append_images=[preview], tiffinfo={254: kind})
    assert read_header(data, first_frame=True).frames == frames
    assert decode(data, first_frame=True).image.size == (24, 16)


def test_metadata_too_long_for_jpeg_is_cut_and_named() -> None:
    encoded = encode(picture(), "JPEG", infotext="x" * 200_000)
    assert "64 KB" in encoded.notes[0]
    assert read_header(encoded.data).infotext.startswith("xxx")


def test_format_by_name() -> None:
    assert format_of("a.b.JPeG") == "JPEG"
    assert format_of("a.txt") is None
    assert all(format_of("x" + suffix) == name for name, suffix in PREFERRED_SUFFIX.items())


def sample_files() -> list[Path]:
    folder = Path(__file__).parents[2] / "fam_ext" / "demo" / "samples"
    return sorted(path for path in folder.glob("*") if format_of(path) is not None) if folder.is_dir() else []


@pytest.mark.parametrize("path", sample_files(), ids=lambda path: path.name)
def test_files_of_the_real_webui_round_trip(path: Path) -> None:
    loaded = decode(path.read_bytes())
    text = loaded.header.infotext
    assert parse(text).params["Model"] == "fluent-tiny"
    added = add(text, to_fields(FamConfig(cutoff=0.4)))
    out = read_header(encode(loaded.image, loaded.header.format, origin=loaded.header, infotext=added).data)
    assert out.infotext == added
    assert undo(out.infotext) == text


@pytest.mark.parametrize("target", [name for name in WRITABLE if name != "BMP"])
def test_the_new_text_wins_over_an_old_comment(target: str) -> None:
    header = decode(file_of("JPEG", exif=exif_block())).header
    new = "new text\nSteps: 20, Sampler: DDIM, Seed: 1"
    assert read_header(encode(picture(), target, origin=header, infotext=new).data).infotext == new


def test_avif_without_its_codec_says_what_to_do(monkeypatch) -> None:
    data = b"\x00\x00\x00\x20ftypavif" + b"\x00" * 40
    monkeypatch.delitem(Image.SAVE, "AVIF", raising=False)
    can_write.cache_clear()
    try:
        with pytest.raises(PictureError, match="pillow-avif-plugin"):
            read_header(data)
        with pytest.raises(PictureError, match="pillow-avif-plugin"):
            encode(picture(), "AVIF")
    finally:
        can_write.cache_clear()


@pytest.mark.parametrize("target", [name for name in WRITABLE if name != "BMP"])
@pytest.mark.parametrize("taken", [False, True])
def test_a_comment_that_ours_displaces_is_kept_beside_it(target: str, taken: bool) -> None:
    for old in ("Urlaub in Köln 猫", INFOTEXT):
        ours = add("a lake", {"FAM start": "0.5"}, settings={"Steps": "30", "Sampler": "DDIM"})
        zeroth = {piexif.ImageIFD.Make: b"Camera"} | ({piexif.ImageIFD.ImageDescription: b"my title"} if taken else {})
        user = {piexif.ExifIFD.UserComment: piexif.helper.UserComment.dump(old, "unicode")}
        block = piexif.dump({"0th": zeroth, "Exif": user})
        info = PngImagePlugin.PngInfo()
        info.add_text("parameters", "a lake\nSteps: 30, Sampler: DDIM")
        source = file_of("PNG", exif=block, pnginfo=info) if target == "PNG" else file_of("JPEG", exif=block)
        encoded = encode(picture(), target, origin=decode(source).header, infotext=ours)
        texts = read_header(encoded.data).places
        values = [text.value for text in texts]
        assert ours in values
        assert old in values
        if taken:
            assert "my title" in values
        assert any("comment" in note for note in encoded.notes) or old in [texts.get("UserComment")]
        Image.open(io.BytesIO(encoded.data)).load()
        again = encode(picture(), target, origin=read_header(encoded.data), infotext=ours)
        assert {text.value for text in read_header(again.data).places} == set(values)


def test_a_comment_that_ours_begins_with_is_not_kept_twice() -> None:
    origin = decode(file_of("JPEG", exif=exif_block())).header
    encoded = encode(picture(), "JPEG", origin=origin, infotext=INFOTEXT + ", FAM start: 0.5")
    assert [text.key for text in read_header(encoded.data).places] == ["Make", "UserComment"]
    assert encoded.notes == ()


def test_a_long_displaced_comment_goes_to_the_jpeg_comment() -> None:
    old = "wörter " * 2500
    origin = decode(file_of("JPEG", exif=exif_block(comment=old))).header
    encoded = encode(
        picture(), "JPEG", origin=origin, infotext="a lake\n" + "Steps: 20, Sampler: DDIM, x: " + "y" * 20000
    )
    values = [text.value.strip() for text in read_header(encoded.data).places]
    assert old.strip() in values


HEIF = b"\x00\x00\x00\x18ftypheic" + bytes(range(256)) * 5


class _FakeHeif(ImageFile.ImageFile):
    """What a Pillow plugin registers, for pixels that lie bare behind twelve bytes."""

    format = "HEIF"

    def _open(self) -> None:
        self._size, self._mode = (24, 16), "RGB"
        self.tile = [("raw", (0, 0, 24, 16), 12, ("RGB", 0, 1))]
        self.info["exif"] = exif_block()


@pytest.mark.parametrize(("data", "plugin"), [(HEIF, "pillow-heif"), (b"\xff\x0a" + b"x" * 40, "pillow-jxl-plugin")])
def test_a_format_without_its_plugin_names_it(data: bytes, plugin: str, monkeypatch) -> None:
    for name in ("HEIF", "JXL"):
        monkeypatch.delitem(Image.OPEN, name, raising=False)
    for module in ("pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PictureError, match=f"install {plugin}"):
        read_header(data)


def test_heic_is_read_where_its_plugin_is(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(Image.OPEN, "HEIF", (_FakeHeif, lambda start: start[8:12] == b"heic"))
    monkeypatch.setattr(Image, "ID", [*Image.ID, "HEIF"])
    loaded = decode(HEIF)
    assert loaded.image.size == (24, 16)
    assert (loaded.header.format, loaded.header.infotext) == ("HEIF", INFOTEXT)
    (tmp_path / "a.heic").write_bytes(HEIF)
    plan = Job.of((str(tmp_path / "a.heic"),), str(tmp_path / "out"))
    planned = plan_file(next(walk(plan.places)), plan)
    assert (planned.format, planned.output, planned.problem) == ("PNG", "a.png", None)
    assert [format_of(name) for name in ("a.HEIC", "a.heif", "a.jxl")] == ["HEIF", "HEIF", "JXL"]


def test_a_damaged_exif_block_costs_a_tiff_no_infotext() -> None:
    block = Image.Exif()
    block[0x8769] = {0x9003: "2020:01:01 00:00:00", 0x927C: b"maker" * 20}
    block[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
    notes = 0
    for place in range(14, len(block.tobytes())):
        damaged = bytearray(block.tobytes())
        damaged[place] = 1
        origin = Header("JPEG", (16, 16), exif=bytes(damaged))
        made = encode(picture(16, 16), "TIFF", origin=origin, infotext=INFOTEXT)
        assert read_header(made.data).infotext == INFOTEXT, place
        notes += "could not be carried over" in str(made.notes)
    assert notes  # some were past carrying


def test_a_table_that_pillow_leaves_out_costs_a_tiff_no_infotext() -> None:
    block = Image.Exif()
    block[0x8769] = {0x9003: "2020:01:01 00:00:00", 0x927C: b"maker" * 20}
    whole = block.tobytes()
    for place in range(len(whole)):
        for value in (0, 1, 255):
            damaged = whole[:place] + bytes([value]) + whole[place + 1 :]
            made = encode(picture(16, 16), "TIFF", origin=Header("JPEG", (16, 16), exif=damaged), infotext=INFOTEXT)
            assert read_header(made.data).infotext == INFOTEXT, (place, value)


def test_of_very_many_texts_few_are_looked_at_and_all_are_kept() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", INFOTEXT.encode("ascii", "ignore").decode())
    for number in range(5_000):
        info.add_text(f"key {number}", "a word")
    header = read_header(file_of("PNG", pnginfo=info))
    assert len(header.places) == MAX_READ and header.settings()[1] == "parameters"
    made = encode(picture(), "PNG", origin=header, infotext="new")
    assert len(read_header(made.data).texts) == len(header.texts) + 1


@pytest.mark.parametrize("target", [name for name in WRITABLE if name != "BMP"])
@pytest.mark.parametrize("comment", [b"hello, K\xc3\xb6ln", b"parameters\x00" + INFOTEXT.encode() + b"\x00"])
def test_a_jpeg_s_comment_stays_in_every_format_and_ours_is_read_first(target: str, comment: bytes) -> None:
    origin = decode(file_of("JPEG", comment=comment)).header
    before = [text.value for text in origin.places]
    ours = add(origin.own_text or "a lake", to_fields(FamConfig(cutoff=0.3)), settings={"Steps": "30", "Seed": "1"})
    header = read_header(encode(picture(), target, origin=origin, infotext=ours).data)
    assert header.infotext == ours
    assert all(any(old in text.value for text in header.places) for old in before)


def photoshop(*resources: tuple[int, bytes]) -> bytes:
    made = (b"8BIM" + struct.pack(">HHI", code, 0, len(data)) + data + bytes(len(data) % 2) for code, data in resources)
    body = (b"Photoshop 3.0\0" + b"".join(made))[:65533]
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize("length", [21, 22, 65_507])
@pytest.mark.parametrize("target", WRITABLE)
def test_iptc_stays_in_a_jpeg_and_is_named_elsewhere(target: str, length: int) -> None:
    iptc = b"\x1c\x02\x78\0\x05hello".ljust(length, b"x")
    plain = with_xmp(file_of("JPEG"))
    origin = decode(
        plain[:2] + photoshop(*[(0x0404, iptc), (0x040C, b"old thumbnail")][: 1 + (length < 100)]) + plain[2:]
    ).header
    encoded = encode(picture(), target, origin=origin, infotext=INFOTEXT)
    if target == "JPEG":
        written = Image.open(io.BytesIO(encoded.data))
        assert written.info["photoshop"] == {0x0404: iptc}
        assert (encoded.notes, read_header(encoded.data).infotext) == ((), INFOTEXT)
    else:
        assert "IPTC" in encoded.notes[0]
    assert read_header(encode(picture(), target, origin=origin, strip=True).data).iptc is None


def test_xmp_too_long_for_jpeg_is_named() -> None:
    origin = Header("PNG", (16, 24), xmp=XMP + b" " * 66_000)
    assert "64 KB of XMP" in encode(picture(), "JPEG", origin=origin).notes[0]
    assert encode(picture(), "WEBP", origin=origin).notes == ()


def test_png_texts_that_a_format_cannot_hold_are_named() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "first words")
    info.add_text("parameters", INFOTEXT)
    origin = read_header(file_of("PNG", pnginfo=info))
    notes = encode(picture(), "WEBP", origin=origin, infotext=f"{INFOTEXT}, FAM version: 1").notes
    assert "not kept: parameters" in notes[0]
