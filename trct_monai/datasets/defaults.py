"""The data set that a bundle uses when it is given none: PhantomThorax, made on the spot."""

import os
from pathlib import Path

from trct_monai.datasets.phantom_sets import phantoms
from trct_monai.datasets.prepare import prepare
from trct_monai.datasets.split import DATALIST

SPLIT = "400/50/50"
PHASES_SPLIT = "80/10/20"


def default_datalist(
    folder: str | os.PathLike[str], *, size: int = 64, radiograph_size: int = 128, geometry: str = "x2ct"
) -> str:
    """The path of a datalist of PhantomThorax; where there is none, phantoms are made first (400 / 50 / 50 of them).

    Each combination of sizes and views has a folder of its own: a network for fine radiographs never gets coarse ones
    unnoticed.

    Args:
        folder: Folder of such data sets.
        size: Voxels along each side of the labels.
        radiograph_size: Rows and columns of the radiographs.
        geometry: Preset of the radiographs.

    Raises:
        ValueError: If the phantoms are missing and several processes run, which would all make them.
    """
    other_views = "" if geometry == "x2ct" else f"_{geometry}"
    folder = Path(folder) / f"PhantomThorax-{size}_{radiograph_size}{other_views}"
    path = folder / DATALIST
    if not path.is_file():
        _announce(
            path,
            f"python -m trct_monai phantoms --output {folder} --split {SPLIT} "
            f"--size {size} --radiograph_size {radiograph_size} --geometry {geometry}",
        )
        phantoms(str(folder), size=size, radiograph_size=radiograph_size, geometry=geometry, split=SPLIT)
    return str(path)


def default_phases(folder: str | os.PathLike[str], *, size: int = 128, phases: int = 10) -> str:
    """The path of a datalist of phantoms' phases; where there is none, they are made and prepared (80 / 10 / 20).

    Args:
        folder: Folder of such data sets.
        size: Voxels along each side.
        phases: Phases over which the time average goes.

    Raises:
        ValueError: If they are missing and several processes run, which would all make them.
    """
    pairs = Path(folder) / f"PhantomPhases-{size}_{phases}"
    cases = pairs.with_name(f"{pairs.name}_cases")
    path = cases / DATALIST
    if not path.is_file():
        _announce(
            path,
            f"python -m trct_monai phantoms --phases {phases} --size {size} --split {PHASES_SPLIT} --output {pairs}; "
            f"python -m trct_monai prepare --input {pairs} --output {cases}",
        )
        phantoms(str(pairs), size=size, phases=phases, split=PHASES_SPLIT)
        prepare(str(pairs), str(cases))
    return str(path)


def _announce(path: Path, command: str) -> None:
    """Say what is about to be made, unless several processes would all make it."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"there is no datalist {path}; make one first: {command}")
    print(f"no datalist {path}; making phantoms, as by: {command}", flush=True)
