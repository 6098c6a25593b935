"""Files that a user is given: the old one or the new one, whatever happens, and every writer goes one way."""

from __future__ import annotations

import ast
import contextlib
import errno
import io
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import kintsugi as kg
from kintsugi.core.errors import DataError
from kintsugi.io import files
from kintsugi.io.files import (
    digest,
    is_temporary,
    open_bounded,
    read_bounded,
    replace_file,
    replacing,
    taking_turns,
    temporary_folder,
)  # fmt: skip

ROOT = Path(kg.__file__).parent
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def in_child(work: Callable[[], Any]) -> int:
    """Status of a fork that does the work: 0, or 1 where it raised."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def temporary(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if is_temporary(path.name)]


# one file for another -----------------------------------------------------------------------------------------------
def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    replace_file(tmp_path / "a.txt", b"one")
    replace_file(str(tmp_path / "a.txt"), b"two")
    assert (tmp_path / "a.txt").read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_stands_there_is_the_old_file_until_all_of_the_new_one_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("old")
    with replacing(tmp_path / "a.csv") as fresh:
        assert fresh.parent == tmp_path
        fresh.write_text("half")
        assert (tmp_path / "a.csv").read_text() == "old"
        fresh.write_text("whole")
    assert (tmp_path / "a.csv").read_text() == "whole"


@pytest.mark.parametrize("old", [b"old", None])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, OSError])
def test_an_exception_leaves_the_old_file_and_nothing_else(
    old: bytes | None, kind: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    if old is not None:
        path.write_bytes(old)
    error = kind(errno.EIO, "Input/output error")

    def work() -> None:
        with replacing(path) as fresh:
            fresh.write_bytes(b"half")
            raise error

    with pytest.raises(kind) as caught:
        work()
    assert caught.value is error
    if isinstance(error, OSError):
        assert str(error) == f"[Errno {errno.EIO}] Input/output error: '{path}'"
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == ({} if old is None else {"a.csv": old})


def test_a_file_that_grows_beyond_a_limit_is_named_and_the_old_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"old")

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
        with pytest.raises(OSError, match="File too large") as caught:
            replace_file(path, b"x" * 4000)
        assert caught.value.filename == str(path)

    assert in_child(limited) == 0
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.csv": b"old"}


@pytest.mark.parametrize("when", ["replace", "fsync", "write"])
def test_a_kill_leaves_the_old_file_and_the_next_writer_sweeps(when: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"old")

    def killed(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        if when == "write":
            with replacing(path) as fresh:
                fresh.write_bytes(b"half")
                killed()
        setattr(os, when, killed)
        replace_file(path, b"new")

    assert os.WTERMSIG(in_child(work)) == signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(temporary(tmp_path)) == 1
    replace_file(tmp_path / "other.csv", b"else")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "other.csv"]


def test_what_a_living_writer_is_at_is_not_swept(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom kintsugi.io.files import replacing\n"
        "with replacing(sys.argv[1]) as fresh:\n"
        "    fresh.write_text('theirs')\n    print('there', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a.txt")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "there\n"
        assert len(temporary(tmp_path)) == 1
        replace_file(tmp_path / "a.txt", b"ours")
        assert len(temporary(tmp_path)) == 1
        writer.communicate("")
    assert writer.returncode == 0
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.txt": "theirs"}


def test_what_a_writer_on_another_machine_left_is_swept_after_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half() -> None:
        with replacing(tmp_path / "a.txt") as fresh:
            fresh.write_text("half")
            os._exit(0)

    in_child(half)
    monkeypatch.setattr(files, "_HOST", "elsewhere")
    replace_file(tmp_path / "b.txt", b"")
    (left,) = temporary(tmp_path)
    old = time.time() - 25 * 3600
    os.utime(left, (old, old))
    replace_file(tmp_path / "b.txt", b"")
    assert temporary(tmp_path) == []


@pytest.mark.parametrize("name", ["notes.tmp", ".kintsugi.tmp", ".kintsugi.12.tmp", "kintsugi.1.00ff-00112233.tmp"])
def test_files_of_somebody_else_are_not_swept(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    replace_file(tmp_path / "a.txt", b"")
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_new_file_has_the_mode_that_the_user_s_files_have_and_an_old_one_keeps_its_own(
    mask: int, tmp_path: Path
) -> None:
    before = os.umask(mask)
    try:
        replace_file(tmp_path / "new", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o666 & ~mask
    for mode in (0o600, 0o640, 0o755, 0o444):
        (tmp_path / "new").chmod(mode)
        replace_file(tmp_path / "new", b"more")
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == mode
        with replacing(tmp_path / "new") as fresh:
            assert stat.S_IMODE(fresh.stat().st_mode) == 0o600, "others could read it while it is written"


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a.txt").write_text("old")
    (tmp_path / "near.txt").symlink_to(Path("far") / "a.txt")
    replace_file(tmp_path / "near.txt", b"new")
    assert (tmp_path / "near.txt").is_symlink()
    assert (tmp_path / "far" / "a.txt").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["far", "near.txt"]
    (tmp_path / "far" / "a.txt").unlink()
    replace_file(tmp_path / "near.txt", b"again")
    assert (tmp_path / "far" / "a.txt").read_text() == "again"


def test_names_up_to_the_limit_of_the_file_system_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "x" * 100 + "." + "y" * 154, "ä" * 123 + ".parquet"):
        replace_file(tmp_path / name, b"1")
        replace_file(tmp_path / name, b"2")
        assert (tmp_path / name).read_bytes() == b"2"
    with pytest.raises(OSError, match="File name too long") as caught:
        replace_file(tmp_path / ("x" * 256), b"")
    assert caught.value.filename == str(tmp_path / ("x" * 256))
    assert temporary(tmp_path) == []


@pytest.mark.parametrize(("name", "kind"), [("none/a.txt", FileNotFoundError), ("folder", IsADirectoryError)])
def test_an_error_names_the_file_that_was_to_be_written(name: str, kind: type[OSError], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(kind) as caught:
        replace_file(tmp_path / name, b"")
    assert caught.value.filename == str(tmp_path / name)
    assert str(caught.value).endswith(f"'{tmp_path / name}'")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    replace_file(pipe, b"through")
    reader.join(10)
    assert read == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_table_is_packed_as_the_ending_of_its_file_says(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    with replacing(tmp_path / "a.csv.gz") as fresh:
        frame.to_csv(fresh, index=False)
    assert (tmp_path / "a.csv.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert pd.read_csv(tmp_path / "a.csv.gz").equals(frame)


# turns --------------------------------------------------------------------------------------------------------------
def test_one_at_a_time_holds_a_folder(tmp_path: Path) -> None:
    inside, most = [], []

    def work() -> None:
        for _ in range(20):
            with taking_turns(tmp_path / "folder"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 80


def test_who_waited_for_a_folder_that_was_removed_makes_it_anew(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    wrote = threading.Event()

    def second() -> None:
        with taking_turns(folder):
            (folder / "mine").write_text("")
            wrote.set()

    thread = threading.Thread(target=second)
    with taking_turns(folder):
        thread.start()
        time.sleep(0.1)
        assert not wrote.is_set()
        folder.rmdir()
    thread.join(10)
    assert (folder / "mine").exists()


# digests ------------------------------------------------------------------------------------------------------------
def test_a_digest_is_that_of_what_comes_back_from_a_file() -> None:
    assert digest({"b": (1, 2.5), "a": None}) == digest({"a": None, "b": [1, 2.5]})
    assert digest({1: "x", 10: float("nan"), 2: float("inf")}) == digest(
        {"1": "x", "2": float("inf"), "10": float("nan")}
    )
    assert len(digest(0)) == 64


def test_a_digest_differs_with_the_value_and_with_each_payload_and_its_place() -> None:
    values: list[tuple[Any, ...]] = [
        ({},), ([],), ({"a": 1},), ({"a": 1.0},), ({"a": True},), ({"a": "1"},), ({"a": None},),
        ({"a": 1}, b""), ({"a": 1}, b"xy"), ({"a": 1}, b"x", b"y"), ({"a": 1}, b"y", b"x"), ({"a": 1}, b"", b"xy"),
    ]  # fmt: skip
    assert len({digest(*each) for each in values}) == len(values)
    with pytest.raises(TypeError):
        digest({"a": object()})


# pictures -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which a stand-in for Ghostscript, first on the path, would note that it was started."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "gs"
    program.write_text(f"#!/bin/sh\necho started >> {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "started"


def picture(form: str) -> bytes:
    from PIL import Image

    memory = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(memory, form)
    return memory.getvalue()


def pixels(cell: Any) -> np.ndarray:
    frame = pd.DataFrame({"c": pd.Series([cell, cell], dtype=object), "y": [0.5, 1.5]})
    table = kg.Table.from_pandas(frame, modalities={"m": kg.image("c", size=8)}, target="y")
    (batch,) = table.batches(8)
    return np.asarray(batch.inputs["m"])


@pytest.mark.parametrize("by", ["bytes", "path"])
def test_a_picture_that_is_a_program_is_refused_and_starts_none(by: str, ghostscript: Path, tmp_path: Path) -> None:
    from PIL import Image

    content = picture("EPS")
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"is an image of format EPS, which is not read; formats that are: .*JPEG.*PNG"):
        pixels(content if by == "bytes" else str(tmp_path / "a.png"))
    assert not ghostscript.exists()
    with contextlib.suppress(OSError):  # what it starts where the format is not asked for
        Image.open(io.BytesIO(content)).load()
    assert ghostscript.exists(), "the stand-in would not have been noticed"


@pytest.mark.parametrize("form", ["BMP", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "SGI", "TIFF", "WEBP", "AVIF"])
def test_pictures_of_the_formats_that_are_read(form: str) -> None:
    from PIL import features

    from kintsugi.data.media import FORMATS

    assert form in FORMATS
    needed = {"JPEG2000": "jpg_2000", "WEBP": "webp", "AVIF": "avif"}.get(form)
    if needed and not features.check(needed):
        pytest.skip(f"this Pillow was built without {needed}")
    assert pixels(picture(form)).shape == (2, 3, 8, 8)


@pytest.mark.parametrize(("content", "named"), [(b"8BPS" + b"\0" * 40, "PSD"), (b"x", None), (b"nothing", None)])
def test_other_bytes_are_told_from_other_formats(content: bytes, named: str | None) -> None:
    problem = f"of format {named}, which is not read" if named else "is no image in a known format"
    with pytest.raises(DataError, match=problem):
        pixels(content)


# every writer -------------------------------------------------------------------------------------------------------
WRITERS = {
    "write_text", "write_bytes", "savez", "savez_compressed", "tofile", "memmap", "to_csv", "to_parquet",
    "to_pickle", "to_excel", "to_feather", "write_table", "save_file", "rename", "renames", "copyfile", "copytree",
    "copy2", "move", "fdopen", "mkstemp", "NamedTemporaryFile", "symlink_to", "touch",
}  # fmt: skip
EXCEPTIONS = {
    "methods/corrupted/augmentation/vqa_cycle.py: features.replace": "streams, in memory",
    "methods/missing/generative/unimf.py: features.replace": "streams, in memory",
    "methods/missing/generative/unimf.py: hidden.replace": "streams, in memory",
    "methods/missing/hybrid/tip.py: features.replace": "streams, in memory",
    "io/files.py: fresh.write_bytes": "the one way",
    "io/files.py: os.replace": "the one way",
    "io/files.py: os.open": "the one way",
    "bench/export.py: parquet.write_table": "into memory",
    "bench/export.py: table.to_csv": "into memory",
    "imperfect/mask_file.py: np.savez_compressed": "into memory",
    "testing/golden_reading.py: frame.drop(columns='code').to_csv": "into memory",
    "cli.py: frame.to_csv": "onto the terminal, or what replacing() handed out",
    "cli.py: frame.to_parquet": "what replacing() handed out",
    "commands/describe.py: shown.to_csv": "what replacing() handed out",
    "commands/stores.py: found.table.to_csv": "what replacing() handed out",
    "demo.py: rows[['image', 'speech', 'clue', 'digit']].to_parquet": "what replacing() handed out",
    "evaluation/results.py: self.table.to_csv": "what replacing() handed out",
    "cli.py: results.to_csv": "Results.to_csv, which replaces",
    "demo.py: results.to_csv": "Results.to_csv, which replaces",
    "evaluation/costs_memory.py: os.fdopen": "a pipe",
    "io/files.py: os.fdopen": "for reading",
    "data/csv_tables.py: np.memmap": "for reading",
    "evaluation/costs_memory.py: CLEAR.write_text": "a switch of the kernel",
    "bench/notes.py: (folder / FILE).open": "a line added to a log, of which a kill costs that line alone",
    "bench/processes.py: self.log.write_bytes": "the log of a worker in a temporary folder",
    "bench/processes.py: self.log.open": "the log of a worker in a temporary folder",
    "testing/fresh_process.py: (folder / ORDER).write_text": "between two processes, in a temporary folder",
    "testing/fresh_process.py: (folder / REPLY).write_text": "between two processes, in a temporary folder",
    "testing/fresh_process.py: save_file": "between two processes, in a temporary folder",
    "testing/inputs.py: wave.open": "a toy recording, in a temporary folder of who checks a method",
    "testing/mutation_child.py: Path(request['reply']).open": "in a temporary folder",
    "testing/mutation_child.py: sound.write_text": "in a temporary folder",
    "testing/mutation_run.py: (original / 'kintsugi' / large.relative_to(ROOT)).symlink_to": "in a temporary folder",
    "testing/mutation_run.py: (twin / '__pycache__').symlink_to": "in a temporary folder",
    "testing/mutation_run.py: (twin / file).symlink_to": "in a temporary folder",
    "testing/mutation_run.py: changed.write_text": "in a temporary folder",
    "testing/mutation_run.py: errors.open": "in a temporary folder",
    "testing/mutation_run.py: request.write_text": "in a temporary folder",
    "testing/mutation_run.py: shutil.copytree": "in a temporary folder",
    "bench/salvage.py: shutil.copyfile": "into a temporary folder",
    "bench/salvage.py: shutil.copytree": "into a new store, whose trial is entered after it",
}


def writers(source: str) -> Iterator[str]:
    """Calls that may write to a file, as they stand in the source; of tables' ``rename`` those with columns are none."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        last = name.rpartition(".")[2]
        texts = [str(a.value) for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)]
        if last == "open" and any(set(text) <= set("rwxab+t") and set(text) & set("wxa+") for text in texts):
            yield name
        elif name in ("os.replace", "os.open") or (last == "replace" and len(node.args) == 1 and not node.keywords):
            flags = ast.unparse(node)
            if name != "os.open" or "O_WRONLY" in flags or "O_RDWR" in flags:
                yield name
        elif last in WRITERS and not (last == "rename" and (node.keywords or texts)):
            yield name


def test_every_file_is_written_by_way_of_replace_file() -> None:
    found = {
        f"{file.relative_to(ROOT).as_posix()}: {name}"
        for file in sorted(ROOT.rglob("*.py"))
        for name in writers(file.read_text())
    }
    assert sorted(found - EXCEPTIONS.keys()) == [], "write it by way of kintsugi.io.files"
    assert sorted(EXCEPTIONS.keys() - found) == [], "these exceptions are of nothing"


@pytest.mark.parametrize(
    "source",
    [
        "open(path, 'w')", "path.open('wb')", "open(path, mode='x')", "open(path, 'r+')", "path.write_text(text)",
        "path.write_bytes(b'')", "np.savez(path, a=a)", "frame.to_csv(path)", "frame.to_parquet(path)",
        "save_file(tensors, path)", "os.rename(a, b)", "os.replace(a, b)", "path.rename(other)", "path.replace(other)",
        "os.open(path, os.O_WRONLY | os.O_CREAT)", "shutil.move(a, b)", "io.open(path, 'a')",
    ],
)  # fmt: skip
def test_a_writer_of_any_kind_would_be_noticed(source: str) -> None:
    assert len(list(writers(source))) == 1


@pytest.mark.parametrize(
    "source",
    ["open(path)", "path.open('rb')", "text.replace('a', 'b')", "series.rename('a')", "os.open(path, os.O_RDONLY)",
     "replace(thing, a=1)", "frame.rename(columns=names)", "module.open(io.BytesIO(data), formats=names)"],
)  # fmt: skip
def test_what_writes_nothing_is_not_taken_for_a_writer(source: str) -> None:
    assert list(writers(source)) == []


# what is read: no size is believed ----------------------------------------------------------------------------------
def test_a_file_of_exactly_so_many_bytes_is_read_and_one_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(200)))
    assert read_bounded(path, 200) == bytes(range(200))
    with pytest.raises(DataError, match=r"a\.bin has 200 bytes; as a recording at most 199 are read"):
        read_bounded(str(path), 199, "recording")
    with open_bounded(path, 200) as file:
        assert file.read(3) == b"\0\1\2"
    with pytest.raises(DataError, match="at most 199"), open_bounded(path, 199):
        pass
    path.write_bytes(b"")
    assert read_bounded(path, 0) == b""


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "Is a FIFO"),
        (os.mkdir, "Is a directory"),
        (lambda path: path.symlink_to("/dev/zero"), "Is a device"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), "Is a socket"),
    ],
)
def test_what_is_no_regular_file_is_not_opened(
    make: Callable[[Path], None], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket has 107 letters at most
    make(Path("odd"))
    with pytest.raises(DataError, match=f"odd.*{said}"):
        read_bounded("odd", 1000)


@pytest.mark.parametrize("path", ["none", "\0", "x" * 300, "file/below"])
def test_a_path_that_leads_nowhere_is_one_error(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(DataError):
        read_bounded(path, 10)


def test_a_file_that_is_not_there_is_one_also_for_who_expects_pythons_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none does not exist"):
        read_bounded(tmp_path / "none", 10)


def test_a_file_whose_size_is_not_known_before_is_read_up_to_the_bound() -> None:
    path = "/proc/self/status"  # a regular file of 0 bytes, says the system
    if not Path(path).exists():
        pytest.skip("no /proc here")
    assert read_bounded(path, 100_000).startswith(b"Name:")
    with pytest.raises(DataError, match="and more; as a file at most 30"):
        read_bounded(path, 30)


def test_a_file_that_grows_while_it_is_read_is_read_to_the_bound_and_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read, total = tmp_path / "log", os.read, []
    path.write_bytes(b"x" * 10)

    def growing(handle: int, most: int) -> bytes:
        with path.open("ab") as file:
            file.write(b"y" * 50)
        content = read(handle, most)
        total.append(len(content))
        return content

    monkeypatch.setattr(files.os, "read", growing)
    with pytest.raises(DataError, match="at most 40"):
        read_bounded(path, 40)
    assert sum(total) <= 41


# folders of killed processes ----------------------------------------------------------------------------------------
def test_the_next_run_sweeps_what_a_killed_one_left_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    child = os.fork()
    if child == 0:
        with temporary_folder("kind") as folder:
            (folder / "own").mkdir()
            (folder / "own" / "log").write_text("…")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(f"kind-{child}.")
    space = left.name.split("-")[1].partition(".")[2]
    stay = [
        f"kind-{child}.00000000-elsewhere",
        f"kind-{os.getpid()}.{space}-lives",
        "kind-notes",
        f"other-{child}.{space}-x",
    ]
    for name in stay:
        (tmp_path / name).mkdir()
    (tmp_path / f"kind-{child}.{space}-file").touch()
    (tmp_path / f"kind-{child}.{space}-link").symlink_to(tmp_path / "kind-notes")
    with temporary_folder("kind") as folder:
        assert folder.parent == tmp_path
        assert not left.exists()
    expected = [*stay, f"kind-{child}.{space}-file", f"kind-{child}.{space}-link"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(expected)
