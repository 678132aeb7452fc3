"""Planted spheres as a method shows them, for a reader who is not told where they are.

    python benchmarks/lesions.py --planted DATALIST --predictions FOLDER --output lesions.png

A line for each of the first patients of a data set that `plant` made: the radiographs, and the slices through the
middle of one sphere, in the CT and in the reconstruction. Nothing marks the place.
"""

from pathlib import Path

import fire
import matplotlib.pyplot as plt
import numpy as np

from trct_monai.evaluation.predictions import load_pair, prediction_file
from trct_monai.evaluation.scores import CaseRadiographs
from trct_monai.figures import WIDE, planes
from trct_monai.io import load_datalist
from trct_monai.io.datalist import FIELDS, RADIOGRAPHS
from trct_monai.io.files import replacing

PLANES = ("axial", "coronal")


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
    titles = ["frontal", "lateral", *(f"{kind}, {plane}" for plane in PLANES for kind in ("CT", "reconstruction"))]
    figure, rows = plt.subplots(len(shown), len(titles), figsize=(1.5 * len(titles), 1.5 * len(shown)), squeeze=False)
    for row, case in zip(rows, shown):
        images = CaseRadiographs(case).images[:2].numpy()
        prediction, truth = (volume[0] for volume in load_pair(case, prediction_file(predictions, case["case_id"])))
        spacing, size = float(truth.pixdim[0]), truth.shape[-1]
        index = [round(place / spacing + (size - 1) / 2) for place in case["planted"]["center_mm"]]
        slices = [planes(volume, index)[plane] for plane in PLANES for volume in (truth, prediction)]
        for axes, picture in zip(row, [*images, *slices]):
            window = WIDE if picture.shape == slices[0].shape else np.percentile(picture, (1, 99.8))
            axes.imshow(picture, cmap="gray", vmin=window[0], vmax=window[1])
            axes.set_axis_off()
    for axes, title in zip(rows[0], titles):
        axes.set_title(title, fontsize=8)
    figure.subplots_adjust(0, 0, 1, 0.96, 0.02, 0.02)
    with replacing(Path(output)) as partial:
        figure.savefig(partial, dpi=100, format="png")
    print("wrote", output)


if __name__ == "__main__":
    fire.Fire(lesions)
