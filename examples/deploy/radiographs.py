"""Which files of a folder are the frontal and the lateral radiograph, and whose they are. Needs no Deploy SDK."""

import logging
import re
from pathlib import Path

from trct_monai.datasets.sources import VIEW_NAMES
from trct_monai.io.dicom.header import common_study, is_dicom, read_header
from trct_monai.io.dicom.radiograph import VIEW_POSITIONS, standard_position

DESCRIPTIONS = ("0008|103e", "0018|1030", "0018|1400")
"""Where a DICOM header without ViewPosition may name the view: series, protocol, processing."""

log = logging.getLogger(__name__)


def find_radiographs(folder: Path) -> dict[str, Path]:
    """The radiographs below a folder, by view: ``pa``, ``lat``, or one of them.

    Files of which no view is known are named in a warning and left out.

    Raises:
        ValueError: If there is none, two show the same view, or they are of two patients or studies.
    """
    found: dict[str, Path] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix.lower() != ".png" and not is_dicom(path):
            continue
        view = view_of(path)
        if view is None:
            log.warning("%s is left out: neither header nor name says that it is a frontal or lateral view", path)
        elif view in found:
            raise ValueError(f"{found[view]} and {path} are both view {view!r}; give one examination")
        else:
            found[view] = path
    if not found:
        raise ValueError(
            f"no radiograph in {folder}: expected DICOM files with ViewPosition, or NAME_pa.png and NAME_lat.png"
        )
    common_study(found.values())
    return {view: found[view] for view in ("pa", "lat") if view in found}


def view_of(path: Path) -> str | None:
    """``pa`` or ``lat``: DICOM by ViewPosition, else by its descriptions, a PNG by its name; None if unknown."""
    if not is_dicom(path):
        return named_view(path.stem)
    position, *descriptions = read_header(path, ("0018|5101", *DESCRIPTIONS))
    return VIEW_POSITIONS.get(standard_position(position)) if position else named_view(" ".join(descriptions))


def named_view(text: str) -> str | None:
    """The view that the words of a text name, if it is one; AP is none, since only a header turns the camera round."""
    views = {VIEW_NAMES[word] for word in re.split("[^a-z]+", text.lower()) if word in VIEW_NAMES}
    return views.pop() if len(views) == 1 else None
