"""How much memory a file may ask for: a small one can unpack to any size, and a header can promise any."""

from pathlib import Path

MAX_BYTES = 2**35
"""Of one file's numbers: 32 GiB, sixteen times the largest CT of a scanner."""


CGROUP = Path("/sys/fs/cgroup")

BYTES_A_VOXEL = 9
"""What preparing a CT takes at most: measured on 512 x 512 x 2,000 voxels in DICOM and NIfTI."""


def check_ct_size(num_voxels: int, path: object) -> None:
    """Refuse a CT that this machine cannot prepare, before it is read.

    Raises:
        ValueError: If there is too little memory for it; the line says how much it takes.
    """
    check_bytes(num_voxels * BYTES_A_VOXEL, f"{path}: to prepare its {num_voxels / 1e6:.0f} million voxels")


def check_bytes(needed: int, what: str) -> None:
    """Refuse numbers that are too many, before any memory is taken.

    Args:
        needed: Bytes that they take.
        what: What they are, in the message.

    Raises:
        ValueError: If they are more than `MAX_BYTES`, or than the memory that is free.
    """
    free = _free_memory()
    if needed > MAX_BYTES:
        raise ValueError(f"{what} would take {needed / 2**30:.0f} GiB, more than the {MAX_BYTES / 2**30:.0f} that fit")
    if free is not None and needed > free:
        raise ValueError(f"{what} would take {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB of memory are free")


def _free_memory() -> int | None:
    """Bytes of memory that this machine, or the container, has left; None where neither says."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    try:
        limit, used = (int((CGROUP / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        free.append(limit - used)
    except (OSError, ValueError):
        pass  # no container, or no limit
    return min(free) if free else None
