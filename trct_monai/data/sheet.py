"""A picture of cases to look at: slices of each CT as a radiologist sees them, beside its radiographs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

DISPLAY_HU = (-1000.0, 400.0)

PLANES = ("axial, from below", "coronal, from the front", "sagittal, from the left")


def radiological_slices(cube_hu: Tensor) -> list[np.ndarray]:
    """The middle slices of a cube (1, X, Y, Z): axial, coronal, sagittal, row 0 at the top.

    Axial and coronal have the patient's right on the left, the axial slice anterior at the top; the sagittal slice has
    anterior on the left, as our lateral radiographs do.
    """
    volume = cube_hu.as_subclass(Tensor)[0].numpy()
    x, y, z = (size // 2 for size in volume.shape)
    # x grows to the patient's right, so it runs backwards from left to right of the picture.
    return [volume[::-1, ::-1, z].T, volume[::-1, y, ::-1].T, volume[x, ::-1, ::-1].T]


def save_sheet(path: Path, rows: Sequence[tuple[str, Tensor, Sequence[tuple[str, Tensor]]]]) -> None:
    """Write one row of pictures for each case.

    Args:
        path: PNG to write.
        rows: Name of a case, its CT (1, X, Y, Z) in HU, and name and image (H, W) of its radiographs.
    """
    num_columns = 3 + max(len(radiographs) for _, _, radiographs in rows)
    figure = Figure(figsize=(2.6 * num_columns, 2.8 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), num_columns, squeeze=False)
    for line, (name, cube, radiographs) in zip(axes, rows):
        for axis in line:
            axis.set_xticks([])
            axis.set_yticks([])
        for axis, plane, image in zip(line, PLANES, radiological_slices(cube)):
            axis.imshow(image, cmap="gray", vmin=DISPLAY_HU[0], vmax=DISPLAY_HU[1])
            axis.set_title(plane, fontsize=8)
        for axis, (view, radiograph) in zip(line[3:], radiographs):
            axis.imshow(radiograph.numpy(), cmap="gray")
            axis.set_title(view, fontsize=8)
        for index, (left, right) in enumerate((("R", "L"), ("R", "L"), ("A", "P"))):
            for place, letter in ((0.02, left), (0.92, right)):
                line[index].text(place, 0.5, letter, color="yellow", fontsize=9, transform=line[index].transAxes)
        line[0].set_ylabel(name, fontsize=8)
    temporary = path.with_name(f".{path.name}.partial")
    figure.savefig(temporary, dpi=110, format="png")
    temporary.replace(path)
