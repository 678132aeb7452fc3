"""Planted spheres as a method shows them, for a reader who is not told where they are.

    python benchmarks/lesions.py --planted DATALIST --predictions FOLDER --output lesions.png

A line for each of the first patients of a data set that `plant` made: the radiographs, and the slices through the
middle of one sphere, in the CT and in the reconstruction. Nothing marks the place.
"""

import fire

from trct_monai.evaluation.predictions import load_pair, prediction_file
from trct_monai.evaluation.scores import CaseRadiographs
from trct_monai.figures import lesion_sheet, save_figure
from trct_monai.io import load_datalist
from trct_monai.io.datalist import FIELDS, RADIOGRAPHS


def lesions(
    planted: str, predictions: str, output: str, diameter: float = 40.0, contrast: float = 500.0, cases: int = 5
) -> None:
    """Write the picture.

    Args:
        planted: Datalist that `plant` wrote.
        predictions: Folder of reconstructions of its cases.
        output: PNG to write.
        diameter: Of the spheres in mm.
        contrast: What they add to the lung in HU.
        cases: Patients.
    """
    every = load_datalist(planted, "test", task=RADIOGRAPHS, fields=FIELDS[RADIOGRAPHS])
    wanted = {"diameter_mm": float(diameter), "contrast_hu": float(contrast)}
    shown = [c for c in every if c.get("planted") and {key: c["planted"][key] for key in wanted} == wanted][:cases]
    if not shown:
        raise ValueError(f"{planted} has no spheres of {diameter:g} mm and {contrast:g} HU")
    rows = []
    for case in shown:
        prediction, truth = (volume[0] for volume in load_pair(case, prediction_file(predictions, case["case_id"])))
        spacing, size = float(truth.pixdim[0]), truth.shape[-1]
        index = [round(place / spacing + (size - 1) / 2) for place in case["planted"]["center_mm"]]
        radiographs = CaseRadiographs(case)
        rows.append((radiographs.images[:2], truth, prediction, index))
    save_figure(lesion_sheet(rows, radiographs.cameras[:2], spacing), output)
    print("wrote", output)


if __name__ == "__main__":
    fire.Fire(lesions)
