"""What bad files are made with: a kind of file has a good one, a reader and a table of bad ones."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.readers import CORPUS


@dataclass(frozen=True)
class Put:
    """What stands under a name and is no file of some bytes."""

    name: str
    put: Callable[[Path], None]


Rewrite = Callable[[bytes], bytes]
Change = Rewrite | Put
"""How a bad file is made of the good one."""
Table = dict[str, tuple[Change, str]]
"""Bad files by name: how they are made, and a regular expression that the message matches."""


@dataclass(frozen=True)
class Kind:
    """A kind of file that the package reads."""

    name: str
    file: str
    """What the file is called; a message that does not name it is no help in a folder of files."""
    good: Callable[[], bytes]
    """A file that is read without an error."""
    read: Callable[[Path], Any]
    bad: Table
    needs: tuple[str, ...] = ()
    """Optional modules of the reader."""
    told: str | None = None
    """What a message calls it, if not by the file's name; nothing where the reader has a text."""
    times: int = 2
    """How many times the file's size the reader may take, as in ``tests/fuzz/readers.py``."""
    beside: Callable[[Path], None] | None = field(default=None)
    """Writes the further files into the folder that the reader needs."""

    def write(self, folder: Path, change: Change) -> Path:
        """Puts a bad file into a folder."""
        path = folder / self.file
        if self.beside is not None:
            self.beside(folder)
        if isinstance(change, Put):
            change.put(path)
        else:
            path.write_bytes(change(self.good()))
        return path


def state(path: Path) -> str:
    """What stands under a name, as a digest."""
    if path.is_symlink():
        return f"link to {path.readlink()}"
    if path.is_dir():
        return f"folder of {sorted(one.name for one in path.iterdir())}"
    size = path.stat().st_size
    if size > 1 << 30:
        return f"hole of {size} bytes"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def corpus(name: str) -> bytes:
    """A whole file of the fuzz tests."""
    return (CORPUS / name).read_bytes()


DIRECTORY = Put("folder", lambda path: path.mkdir())
LOOP = Put("loop", lambda path: path.symlink_to(path.name))
SYSTEM = r"symbolic links|symlink"
"""What systems say of a link to itself."""


def instead(content: bytes) -> Rewrite:
    """Another file altogether."""
    return lambda _: content


def cut(share: float) -> Rewrite:
    """The first bytes only."""
    return lambda data: data[: int(share * len(data))]


def less(count: int) -> Rewrite:
    """All but the last bytes."""
    return lambda data: data[:-count]


def more(surplus: bytes) -> Rewrite:
    """Bytes after the end."""
    return lambda data: data + surplus


def put_at(at: int, piece: bytes) -> Rewrite:
    """Bytes written over others; a negative place counts from the end."""

    def change(data: bytes) -> bytes:
        place = at % len(data)
        return data[:place] + piece + data[place + len(piece) :]

    return change


def swap(old: bytes | str, new: bytes | str, count: int = 1) -> Rewrite:
    """Some bytes, which must be there, in the place of others."""
    first, second = (part.encode() if isinstance(part, str) else part for part in (old, new))

    def change(data: bytes) -> bytes:
        assert first in data, first
        return data.replace(first, second, count)

    return change


ZEROS = bytes(4096)
"""What a file system leaves after a power cut."""
NOISE = random.Random(0).randbytes(4096)
TEXT = b"a note that somebody left under this name\n"
GZIP = b"\x1f\x8b\x08\0\0\0\0\0\0\3" + NOISE[:200]
HTML = b"<!DOCTYPE html>\n<html><body>404: not found</body></html>\n"
"""What a failed download is."""
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4356\n"
"""What a repository without its large files has in their place."""
