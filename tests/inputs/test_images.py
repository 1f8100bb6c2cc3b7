"""Opening images: what is refused and how, what comes out, and where files are looked for."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from insightv.errors import StorageFull
from insightv.inputs.images import (
    ImageError,
    ImageLimits,
    ImageStore,
    check_image,
    open_picture,
    open_question,
)
from insightv.records import Picture, Question
from tests.memory import peak_kb

from . import hostile

REFUSED = {name: (data, code) for name, data, code in hostile.refused()}
ACCEPTED = {name: (data, mime, size) for name, data, mime, size in hostile.accepted()}
WHOLE = {name: data for name, (data, _, _) in ACCEPTED.items()} | {"webp": hostile.encoded(hostile.photo(), "WEBP")}
DATA_URLS = {name: (url, code) for name, url, code in hostile.data_urls()}


def pixels(picture: Picture) -> Image.Image:
    return Image.open(io.BytesIO(picture.data))


def test_there_are_at_least_sixty_images() -> None:
    assert len(REFUSED) + len(ACCEPTED) >= 60


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    data, code = REFUSED[name]
    for use in (open_picture, check_image):
        with pytest.raises(ImageError) as caught:
            use(data)
        assert caught.value.code == code, str(caught.value)
        assert not re.search(r"0x[0-9a-f]{6,}|object at", str(caught.value))
        assert len(str(caught.value)) < 400


@pytest.mark.filterwarnings("default:Corrupt EXIF")  # Pillow says so; as an error it would stop the decoder
@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    data, mime, size = ACCEPTED[name]
    picture = open_picture(data)
    assert (picture.mime, picture.width, picture.height) == (mime, *size)
    assert picture.sha256 == hashlib.sha256(picture.data).hexdigest()
    assert picture == open_picture(data)
    assert check_image(data).sha256 == hashlib.sha256(data).hexdigest()
    with pixels(picture) as image:
        image.load()
        assert (image.mode, image.size) == ("RGB", size)
        assert not image.getexif()
        assert not set(image.info) - {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert b"CANARY" not in picture.data


def test_a_long_way_through_a_large_jpeg_is_refused_by_its_scans() -> None:
    grey = hostile.encoded(Image.new("RGB", (6000, 6000), "grey"), "JPEG", progressive=True)
    last = grey.rindex(b"\xff\xda")
    slow = grey[:last] + grey[last:-2] * 110 + grey[-2:]
    started = time.process_time()
    with pytest.raises(ImageError, match="more than 111 scans"):
        check_image(slow)
    assert time.process_time() - started < 1


def test_cut_images_are_refused_where_another_library_allows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    for name in ("jpeg-cut", "png-cut", "webp-cut"):
        with pytest.raises(ImageError) as caught:
            open_picture(REFUSED[name][0])
        assert caught.value.code == "truncated", name
    assert open_picture(ACCEPTED["jpeg"][0]).width == 96


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", ["jpeg", "jpeg-progressive", "png-palette", "png-animated", "gif-animated", "webp"])
def test_damage_anywhere_gives_a_picture_or_a_coded_error(name: str) -> None:
    data, chance = WHOLE[name], random.Random(name)
    codes = set()
    for _ in range(100):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            open_picture(bytes(damaged))
        except ImageError as error:
            codes.add(error.code)
    size = {"too_large_pixels", "too_small", "too_complex", "animated"}
    assert codes & {"corrupt", "truncated"}
    assert codes <= {"corrupt", "truncated", "not_an_image"} | size


def test_orientation_turns_the_pixels() -> None:
    upright = Image.new("RGB", (40, 20), "white")
    upright.paste("black", (0, 0, 20, 20))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # orientation -> the transpose that a camera "did"
    for orientation, turn in undo.items():
        stored = upright.transpose(Image.Transpose(turn))
        picture = open_picture(hostile.encoded(stored, "PNG", exif=hostile.exif(orientation)))
        assert pixels(picture).tobytes() == upright.tobytes(), orientation


def test_transparency_is_laid_over_white() -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    keyed = hostile.encoded(Image.new("RGB", (8, 8), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert pixels(open_picture(hostile.encoded(clear, "PNG"))).getpixel((4, 4)) == (255, 255, 255)
    assert pixels(open_picture(hostile.encoded(half, "PNG"))).getpixel((4, 4)) == (127, 127, 127)
    assert pixels(open_picture(keyed)).getpixel((4, 4)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    grey = Image.new("I;16", (8, 8), 128 * 257)
    assert pixels(open_picture(hostile.encoded(grey, "PNG"))).getpixel((4, 4)) == (128, 128, 128)


def test_cmyk_keeps_its_colours() -> None:
    stored = hostile.encoded(Image.new("RGB", (32, 32), (200, 40, 40)).convert("CMYK"), "JPEG", quality=95)
    found = pixels(open_picture(stored)).getpixel((16, 16))
    assert isinstance(found, tuple)
    assert all(abs(one - other) < 8 for one, other in zip(found, (200, 40, 40), strict=True))


def test_animated_gives_the_first_frame() -> None:
    for name in ("gif-animated", "png-animated"):
        assert pixels(open_picture(ACCEPTED[name][0])).getpixel((5, 5)) == (255, 0, 0)


def test_never_scaled_up_and_down_as_asked() -> None:
    data = hostile.encoded(hostile.photo(400, 100), "PNG")
    assert open_picture(data, limits=ImageLimits(max_pixels=10**9)).width == 400
    small = open_picture(data, limits=ImageLimits(max_pixels=10_000))
    assert (small.width, small.height) == (200, 50)


@pytest.mark.filterwarnings("default:Corrupt EXIF")
def open_all() -> int:
    """Open every image in three threads at once; the process's peak memory in kB."""

    def work() -> None:
        for data, _, _ in ACCEPTED.values():
            open_picture(data)
        for data, _ in REFUSED.values():
            with pytest.raises(ImageError):
                open_picture(data)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return peak_kb()


def test_memory_stays_bounded_over_all_of_them() -> None:
    """In a process of its own: this one's peak holds what other tests have loaded."""
    code = "from tests.inputs.test_images import open_all; print(open_all())"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1_000_000


def test_byte_limit_holds_for_files_bytes_and_data_urls(tmp_path: Path) -> None:
    data = hostile.encoded(hostile.photo(), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    limits = ImageLimits(max_bytes=len(data) - 1)
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    for source in (data, url, tmp_path / "a.png"):
        with pytest.raises(ImageError) as caught:
            open_picture(source, limits=limits)
        assert caught.value.code == "too_large_bytes"
        assert open_picture(source, limits=ImageLimits(max_bytes=len(data))).width == 96


@pytest.mark.parametrize("name", DATA_URLS)
def test_data_url_refused(name: str) -> None:
    url, code = DATA_URLS[name]
    with pytest.raises(ImageError) as caught:
        open_picture(url)
    assert caught.value.code == code
    assert len(str(caught.value)) < 300
    payload = url.partition(",")[2]
    assert len(payload) < 12 or payload[:12] not in str(caught.value)


@pytest.mark.parametrize("start", ["data:image/png;base64,", "DATA:IMAGE/PNG;BASE64,", "data:image/png;name=a;base64,"])
def test_data_url_accepted(start: str) -> None:
    data = hostile.encoded(hostile.photo(), "PNG")
    assert open_picture(start + base64.b64encode(data).decode()) == open_picture(data)


PATHS = {
    "a.png": None,
    "./inner/../a.png": None,
    "inside.png": None,
    "up/images/a.png": None,
    "../secret.png": "outside_root",
    "inner/../../secret.png": "outside_root",
    "../" * 40 + "etc/passwd": "outside_root",
    "../images-too/a.png": "outside_root",
    "/etc/passwd": "outside_root",
    "/dev/zero": "outside_root",
    "/proc/self/environ": "outside_root",
    "outside.png": "outside_root",
    "absolute.png": "outside_root",
    "up/secret.png": "outside_root",
    "missing.png": "missing",
    "a.png/inner": "missing",
    "dangling.png": "missing",
    "loop.png": "bad_path",
    "inner": "is_directory",
    ".": "is_directory",
    "": "bad_path",
    "  ": "bad_path",
    "a.png\0.jpg": "bad_path",
    "x" * 4096: "bad_path",
    "y/" * 3000: "missing",
    "\ud800.png": "bad_path",
    "pipe.png": "not_a_file",
    "file:///etc/passwd": "unsupported_scheme",
    "file:a.png": "unsupported_scheme",
    "FILE://a.png": "unsupported_scheme",
    "ftp://127.0.0.1/a.png": "unsupported_scheme",
    "gopher://127.0.0.1/": "unsupported_scheme",
    "s3://bucket/a.png": "unsupported_scheme",
    "javascript:alert(1)": "unsupported_scheme",
    "http://127.0.0.1/a.png": "remote_not_allowed",
    "HTTPS://example.org/a.png": "remote_not_allowed",
    "http:a.png": "remote_not_allowed",
    " http://127.0.0.1/a.png": "remote_not_allowed",
    "C:\\images\\a.png": "missing",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("path", PATHS, ids=lambda path: ascii(path)[:40])
def test_paths_stay_under_the_root(path: str, tmp_path: Path) -> None:
    root = hostile.folder(tmp_path)
    code = PATHS[path]
    if code is None:
        assert open_picture(path, root=root).width == 96
        return
    with pytest.raises(ImageError) as caught:
        open_picture(path, root=root)
    assert caught.value.code == code, str(caught.value)
    assert len(str(caught.value)) < 700
    assert str(caught.value).isprintable()


def test_absolute_path_inside_the_root_and_a_link_to_the_root(tmp_path: Path) -> None:
    root = hostile.folder(tmp_path)
    assert open_picture(str(root / "a.png"), root=root).width == 96
    (tmp_path / "link").symlink_to(root)
    assert open_picture("a.png", root=tmp_path / "link").width == 96


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Every path that this process opens, by Python's audit events."""
    paths: list[str] = []
    live = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if live and event == "open" and isinstance(arguments[0], str):
            paths.append(arguments[0])

    sys.addaudithook(watch)
    yield paths
    live = False


def test_nothing_outside_is_opened_even_to_look(tmp_path: Path, opened: list[str]) -> None:
    root = hostile.folder(tmp_path)
    opened.clear()
    for path in ("../secret.png", "outside.png", "absolute.png", "up/secret.png", str(tmp_path / "secret.png")):
        with pytest.raises(ImageError):
            open_picture(path, root=root)
    assert not [path for path in opened if "secret" in path]


@pytest.mark.timeout(60)
def test_a_link_swapped_in_meanwhile_never_leads_outside(tmp_path: Path) -> None:
    root = hostile.folder(tmp_path)
    secret = hostile.encoded(Image.new("RGB", (50, 50), "black"), "PNG")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b.png").write_bytes(secret)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(root / "inner", root / "aside")
            os.symlink("../inner", root / "inner")
            os.unlink(root / "inner")
            os.rename(root / "aside", root / "inner")

    swapper = threading.Thread(target=swap)
    swapper.start()
    widths = set()
    codes = set()
    try:
        for _ in range(1500):
            try:
                widths.add(open_picture("inner/b.png", root=root).width)
            except ImageError as error:
                codes.add(error.code)
    finally:
        stop.set()
        swapper.join()
    assert widths == {96}
    assert codes <= {"missing", "outside_root", "bad_path"}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/tty0", "/"])
def test_devices_do_not_hang_without_a_root(path: str) -> None:
    with pytest.raises(ImageError) as caught:
        open_picture(path)
    assert caught.value.code in ("not_a_file", "is_directory", "missing", "unreadable")


def test_a_socket_is_not_a_file(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.png"))
        with pytest.raises(ImageError) as caught:
            open_picture("s.png", root=tmp_path)
    assert caught.value.code == "not_a_file"


def test_pil_images_are_copied_and_not_changed() -> None:
    image = hostile.photo(2000, 1500).convert("RGBA")
    image.info["comment"] = "CANARY"
    before = image.tobytes()
    picture = open_picture(image)
    assert (picture.mime, picture.width, picture.height) == ("image/png", 1156, 867)
    assert (image.size, image.mode, image.tobytes()) == ((2000, 1500), "RGBA", before)
    cut = Image.open(io.BytesIO(REFUSED["jpeg-cut"][0]))
    with pytest.raises(ImageError) as caught:
        open_picture(cut)
    assert caught.value.code == "truncated"
    with pytest.raises(ImageError):
        open_picture(7)  # type: ignore[arg-type]  # what a caller without types may pass


def test_open_question_names_question_and_image(tmp_path: Path) -> None:
    root = hostile.folder(tmp_path)
    question = Question(id="q1", question="Which?", images=("a.png", "inside.png"), answer="7")
    opened = open_question(question, root=root)
    assert [picture.width for picture in opened.pictures] == [96, 96]
    assert opened.model_copy(update={"images": question.images}) == question
    assert open_question(opened) is opened
    with pytest.raises(ImageError, match=r"question 'q1': images\[1\]: 'gone.png' does not exist"):
        open_question(question.model_copy(update={"images": ("a.png", "gone.png")}), root=root)


def test_store_keeps_and_checks(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "run" / "images")
    pictures = [open_picture(ACCEPTED[name][0]) for name in ("jpeg", "gif")]
    for picture in pictures:
        assert store.put(picture) == store.put(picture) == picture.sha256
        assert store.get(picture.sha256) == picture
    files = sorted(store.folder.iterdir())
    assert sorted(file.name for file in files) == sorted(
        f"{picture.sha256}.{picture.mime.replace('jpeg', 'jpg')[6:]}" for picture in pictures
    )
    assert oct(store.folder.stat().st_mode)[-3:] == "700"
    assert {oct(file.stat().st_mode)[-3:] for file in files} == {"600"}
    files[0].write_bytes(b"changed")
    with pytest.raises(ImageError, match="was changed"):
        store.get(files[0].stem)
    files[0].unlink()
    files[0].mkdir()
    with pytest.raises(ImageError, match="is a folder, and a file is needed"):
        store.get(files[0].stem)
    for bad, code in (("0" * 64, "missing"), ("../../etc/passwd", "bad_path"), ("", "bad_path")):
        with pytest.raises(ImageError) as caught:
            store.get(bad)
        assert caught.value.code == code


def test_store_in_many_threads_leaves_no_parts(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    picture = open_picture(ACCEPTED["jpeg"][0])
    threads = [threading.Thread(target=store.put, args=(picture,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [file.name for file in tmp_path.iterdir()] == [f"{picture.sha256}.jpg"]


def test_a_full_disk_stops_the_run_and_leaves_nothing(tmp_path: Path) -> None:
    program = """
import resource, sys
from pathlib import Path
from insightv.errors import StorageFull
from insightv.inputs.images import ImageStore, open_picture
picture = open_picture(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    ImageStore(Path(sys.argv[2])).put(picture)
except StorageFull as error:
    print(error)
"""
    (tmp_path / "a.jpg").write_bytes(ACCEPTED["jpeg"][0])
    arguments = [sys.executable, "-c", program, str(tmp_path / "a.jpg"), str(tmp_path / "store")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert f"{tmp_path}/store/" in done.stdout
    assert "bytes" in done.stdout
    assert not list((tmp_path / "store").iterdir())


@pytest.mark.parametrize("place", ["images", "images/inner"])
def test_a_store_that_cannot_be_written_stops_the_run_whatever_the_reason(place: str, tmp_path: Path) -> None:
    (tmp_path / "images").write_text("a file in the place of the folder")
    with pytest.raises(StorageFull, match=r"a file is where a folder is needed \(.*images") as caught:
        ImageStore(tmp_path / place).put(open_picture(ACCEPTED["jpeg"][0]))
    assert caught.value.exit_code == 3
    assert "move it away, then resume the run" in str(caught.value)
    with pytest.raises(ImageError) as missing:
        ImageStore(tmp_path / place).get("0" * 64)
    assert missing.value.code == "missing"


def test_a_failing_disk_stops_the_run_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing_fsync(descriptor: int) -> None:
        raise OSError(errno.EREMOTEIO, os.strerror(errno.EREMOTEIO))

    monkeypatch.setattr(os, "fsync", failing_fsync)
    with pytest.raises(StorageFull, match=os.strerror(errno.EREMOTEIO)):
        ImageStore(tmp_path).put(open_picture(ACCEPTED["jpeg"][0]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_a_picture_of_few_bits_in_sixteen_is_stretched(bits: int) -> None:
    row = [1 << (bits - 1)] * 20 + [(1 << bits) - 1] * 20
    grey = Image.frombytes("I;16", (40, 32), b"".join(value.to_bytes(2, "little") for value in row) * 32)
    opened = open_picture(hostile.encoded(grey, "PNG"))
    shown = Image.open(io.BytesIO(opened.data)).convert("L")
    assert (shown.getpixel((2, 2)), shown.getpixel((38, 2))) == (128, 255)


def test_what_is_white_is_not_laid_over_white() -> None:
    layers = Image.new("RGBA", (40, 32), (255, 255, 255, 0))
    layers.paste((255, 255, 255, 255), (0, 0, 20, 32))
    opened = open_picture(hostile.encoded(layers, "PNG"))
    shown = Image.open(io.BytesIO(opened.data)).convert("RGB")
    assert (shown.getpixel((2, 2)), shown.getpixel((38, 2))) == ((255, 255, 255), (0, 0, 0))


def test_a_picture_of_one_colour_is_told() -> None:
    plain, other = Image.new("RGB", (40, 32), "red"), Image.new("RGB", (40, 32), "red")
    other.paste("blue", (0, 0, 20, 32))
    for form in ("PNG", "JPEG"):
        assert check_image(hostile.encoded(plain, form)).blank
        assert not check_image(hostile.encoded(other, form)).blank
