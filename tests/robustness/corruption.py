"""Ways in which files go wrong: each kind takes a file, and other files to mix it up with, and a random generator."""

import gzip
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

Kind = Callable[[Path, list[Path], random.Random], None]


def _bytes_kind(change: Callable[[bytearray, random.Random], bytes | bytearray]) -> Kind:
    def kind(path: Path, others: list[Path], rng: random.Random) -> None:
        path.write_bytes(change(bytearray(path.read_bytes()), rng))

    return kind


def _cut(raw: bytearray, rng: random.Random) -> bytearray:
    return raw[: rng.randrange(len(raw))]


def _cut_in_header(raw: bytearray, rng: random.Random) -> bytearray:
    return raw[: rng.randrange(min(400, len(raw)))]


def _block(raw: bytearray, rng: random.Random, fill: Callable[[int], bytes]) -> bytearray:
    length = rng.choice([4, 16, 64, 256])
    at = rng.randrange(max(1, len(raw) - length))
    raw[at : at + length] = fill(len(raw[at : at + length]))
    return raw


def _flip(raw: bytearray, rng: random.Random, within: int) -> bytearray:
    for _ in range(rng.choice([1, 2, 8])):
        raw[rng.randrange(min(within, len(raw)))] ^= 1 << rng.randrange(8)
    return raw


def _insert(raw: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(raw))
    return raw[:at] + rng.randbytes(rng.choice([1, 2, 7, 100])) + raw[at:]


def _remove(raw: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(raw))
    return raw[:at] + raw[at + rng.choice([1, 2, 7, 100]) :]


def _not_a_number(raw: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(max(1, len(raw) - 8)) // 4 * 4
    raw[at : at + 4] = rng.choice([b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\xff\xff"])
    return raw


def _other_byte_order(raw: bytearray, rng: random.Random) -> bytearray:
    start = rng.choice([0, 348, 352, len(raw) // 2]) // 2 * 2
    body = raw[start : len(raw) // 2 * 2]
    body[0::2], body[1::2] = body[1::2], body[0::2]
    return raw[:start] + body + raw[len(raw) // 2 * 2 :]


def _other_type(raw: bytearray, rng: random.Random) -> bytes | bytearray:
    """What the numbers are said to be: of MetaImage and NRRD in words, of NIfTI by a code, of others by chance."""
    for word, others in (
        (b"MET_SHORT", (b"MET_USHORT", b"MET_FLOAT", b"MET_UCHAR")),
        (b"type: short", (b"type: float",)),
    ):
        if word in raw:
            return raw.replace(word, rng.choice(others), 1)
    if raw[:4] == b"\x5c\x01\x00\x00":  # 348, the size of NIfTI's header
        code, bits = rng.choice([(2, 8), (8, 32), (16, 32), (64, 64), (128, 24), (256, 8), (512, 16), (1792, 128)])
        raw[70:74] = code.to_bytes(2, "little") + bits.to_bytes(2, "little")
        return raw
    return _flip(raw, rng, 1000)


def _header_of_another(path: Path, others: list[Path], rng: random.Random) -> None:
    length = rng.choice([8, 132, 352, 1000])
    head = rng.choice(others or [path]).read_bytes()[:length]
    path.write_bytes(head + path.read_bytes()[len(head) :])


def _content_of_another(path: Path, others: list[Path], rng: random.Random) -> None:
    other = rng.choice(others or [path])
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def _renamed(path: Path, others: list[Path], rng: random.Random) -> None:
    ending = rng.choice([".nii", ".nii.gz", ".mha", ".nrrd", ".h5", ".dcm", ".png", ".npy", ".json", ".hdr", ""])
    path.rename(path.with_name(path.name.split(".")[0] + ending))


def _missing(path: Path, others: list[Path], rng: random.Random) -> None:
    path.unlink()


def _copied(path: Path, others: list[Path], rng: random.Random) -> None:
    shutil.copy(path, path.with_name(f"copy of {path.name}"))


def _folder(path: Path, others: list[Path], rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _dangling_link(path: Path, others: list[Path], rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.with_name("gone"))


def _pipe(path: Path, others: list[Path], rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _unreadable(path: Path, others: list[Path], rng: random.Random) -> None:
    path.chmod(0)  # root reads it all the same


KINDS: dict[str, Kind] = {
    "cut": _bytes_kind(_cut),
    "cut in the header": _bytes_kind(_cut_in_header),
    "empty": _bytes_kind(lambda raw, rng: b""),
    "zeroed block": _bytes_kind(lambda raw, rng: _block(raw, rng, bytes)),
    "random block": _bytes_kind(lambda raw, rng: _block(raw, rng, rng.randbytes)),
    "flipped bits": _bytes_kind(lambda raw, rng: _flip(raw, rng, len(raw))),
    "flipped bits of the header": _bytes_kind(lambda raw, rng: _flip(raw, rng, 400)),
    "bytes inserted": _bytes_kind(_insert),
    "bytes removed": _bytes_kind(_remove),
    "bytes appended": _bytes_kind(lambda raw, rng: raw + rng.randbytes(rng.choice([1, 512, 5000]))),
    "no number": _bytes_kind(_not_a_number),
    "other byte order": _bytes_kind(_other_byte_order),
    "other type": _bytes_kind(_other_type),
    "text in its place": _bytes_kind(lambda raw, rng: b"<html><body>404 not found</body></html>\n"),
    "Git LFS pointer": _bytes_kind(lambda raw, rng: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    "compressed once more": _bytes_kind(lambda raw, rng: gzip.compress(raw)),
    "twice in one file": _bytes_kind(lambda raw, rng: raw + raw),
    "header of another": _header_of_another,
    "exchanged": _content_of_another,
    "renamed": _renamed,
    "missing": _missing,
    "copied": _copied,
    "a folder in its place": _folder,
    "a dangling link": _dangling_link,
    "a pipe": _pipe,
    "unreadable": _unreadable,
}
