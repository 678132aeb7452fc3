"""What `reconstruct` makes of real pairs of radiographs whose cameras nobody wrote down.

    python benchmarks/real_radiographs.py --radiographs FOLDER --output real_radiographs.csv

FOLDER holds a folder for each patient, NAME_left or NAME_right by the side to which the patient of the lateral faces,
with a file frontal.* and a file lateral.*. Each is given as a pair, as the frontal alone, exchanged, as the lateral in
place of the frontal, and as the frontal alone mirrored left-right; the third and the fourth must be refused, the last
one named in a warning, or said to be not sure.
"""

import csv
import logging
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import fire

from trct_monai.intensity import BODY_HU
from trct_monai.io.files import write_text
from trct_monai.io.radiograph import Radiograph, read_radiograph
from trct_monai.reconstruction import Reconstructor, load_reconstructor

COLUMNS = (
    "patient",
    "given",
    "side",
    "facing",
    "not_sure",
    "width_mm",
    "residual",
    "median_body_hu",
    "interval_hu",
    "warnings",
)


def row_of(name: str, given: str, views: dict[str, Radiograph], reconstructor: Reconstructor) -> dict[str, Any]:
    """One line of the table; ``refused`` in place of numbers where a picture is."""
    row: dict[str, Any] = {"patient": name, "given": given, "side": name.rpartition("_")[2]}
    try:
        result = reconstructor.from_pictures(views)
    except ValueError as error:
        return {**row, "residual": "refused", "warnings": str(error).partition(". Expected")[0]}
    body = result.volume_hu[result.volume_hu > BODY_HU]
    sides = [note.split("facing ")[1].split(",")[0] for note in result.notes if "facing" in note]
    widths = [note.rpartition(", ")[2].split(" ")[0] for note in result.notes]
    return {
        **row,
        "facing": "".join(sides),
        "not_sure": " ".join(view for view, note in zip(views, result.notes) if "not sure" in note),
        "width_mm": " ".join(widths),
        "residual": f"{result.residual:.3f}",
        "median_body_hu": f"{float(body.median()):.0f}",
        "interval_hu": f"{result.mean_width_hu or 0:.0f}",
        "warnings": len(result.warnings),
    }


def mirrored(radiograph: Radiograph) -> Radiograph:
    """The radiograph mirrored left-right."""
    valid = radiograph.valid
    return replace(radiograph, image=radiograph.image.flip(-1), valid=None if valid is None else valid.flip(-1))


def main(radiographs: str, output: str, method: str = "any_view+small") -> None:
    """Reconstruct all and write the table.

    Args:
        radiographs: Folder of pairs.
        output: CSV to write.
        method: Bundle and overlays.
    """
    logging.disable(logging.WARNING)
    reconstructor, rows = load_reconstructor(method), []
    for folder in sorted(path for path in Path(radiographs).iterdir() if path.is_dir()):
        pa, lat = (read_radiograph(next(folder.glob(f"{view}.*"))) for view in ("frontal", "lateral"))
        for given, views in (
            ("pair", {"pa": pa, "lat": lat}),
            ("frontal alone", {"pa": pa}),
            ("exchanged", {"pa": lat, "lat": pa}),
            ("lateral as frontal", {"pa": lat}),
            ("mirrored frontal", {"pa": mirrored(pa)}),
        ):
            row = row_of(folder.name, given, views, reconstructor)
            rows.append({**row, "warnings": str(row["warnings"]).replace(f"{folder}/", "")})
            print(" | ".join(str(rows[-1].get(column, ""))[:90] for column in COLUMNS), flush=True)
    table = StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(Path(output), table.getvalue())


if __name__ == "__main__":
    fire.Fire(main)
