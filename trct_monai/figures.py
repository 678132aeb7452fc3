"""Pictures of volumes and radiographs as a radiologist hangs them: patient's right on the left, head up."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from trct_monai.geometry import Camera
from trct_monai.io.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE = (-1000.0, 600.0)
"""A display window in HU that shows lung, soft tissue and bone together."""

DIFFERENCE = 400.0
"""A difference of this many HU is shown at full colour."""

LINE_LENGTH = 100
"""Characters of a title that fit above three panels."""

_SIDES = {"axial": ("R", "L"), "coronal": ("R", "L"), "sagittal": ("A", "P"), "pa": ("R", "L"), "lat": ("A", "P")}
"""Letters at the left and right edge of each plane and view."""

_Panel = tuple[np.ndarray, tuple[float, float], str, str]
"""A picture (rows, columns), its lowest and highest value, colour map and title."""


def planes(volume: Tensor, index: Sequence[int] | None = None) -> dict[str, np.ndarray]:
    """Axial, coronal and sagittal slices in display order, rows from the top.

    Axial: anterior up, the patient's right on the left. Coronal: head up, the patient's right on the left.
    Sagittal: head up, anterior on the left.

    Args:
        volume: Values (X, Y, Z) in RAS+ order.
        index: Voxel (i, j, k) through which the planes go; the middle if None.
    """
    array = np.asarray(volume.detach().cpu().float())
    i, j, k = index if index is not None else (n // 2 for n in array.shape)
    return {
        "axial": array[::-1, ::-1, k].T,
        "coronal": array[::-1, j, ::-1].T,
        "sagittal": array[i, ::-1, ::-1].T,
    }


def comparison_figure(
    truth_hu: Tensor,
    prediction_hu: Tensor,
    radiographs: Tensor | None = None,
    reprojections: Tensor | None = None,
    *,
    view_names: Sequence[str] = (),
    voxel_spacing: float | None = None,
    title: str = "",
) -> "Figure":
    """Truth, prediction and difference in three planes; beneath, the radiographs beside the prediction's projections.

    Args:
        truth_hu: True CT (X, Y, Z) in HU.
        prediction_hu: Reconstructed CT (X, Y, Z) in HU.
        radiographs: Line integrals (V, H, W) that the prediction was made from.
        reprojections: Line integrals (V, H, W) of the prediction for the same cameras.
        view_names: Names of the views.
        voxel_spacing: Voxel side in mm, for a scale bar.
        title: Heading.
    """
    from matplotlib.figure import Figure

    num_views = 0 if radiographs is None else len(radiographs)
    figure = Figure(figsize=(9.6, 3.2 * (3 + num_views) + 0.4), layout="constrained", dpi=80)
    axes = np.atleast_2d(figure.subplots(3 + num_views, 3))
    truth, prediction = planes(truth_hu), planes(prediction_hu)
    for row, name in enumerate(truth):
        difference = prediction[name] - truth[name]
        panels: list[_Panel] = [
            (truth[name], WIDE, "gray", f"{name}: truth, HU"),
            (prediction[name], WIDE, "gray", "prediction, HU"),
            (difference, (-DIFFERENCE, DIFFERENCE), "RdBu_r", f"difference, mean {np.abs(difference).mean():.0f} HU"),
        ]
        _show_row(figure, axes[row], panels, _SIDES[name])
        if voxel_spacing and row == 0:
            _scale_bar(axes[row][0], truth[name].shape, voxel_spacing)
    if radiographs is not None:
        _show_views(figure, axes[3:], radiographs, reprojections, view_names)
    if title:
        figure.suptitle(_wrapped(title))
    return figure


def reconstruction_figure(
    volume_hu: Tensor,
    width_hu: Tensor | None,
    radiographs: Tensor,
    reprojections: Tensor,
    *,
    view_names: Sequence[str] = (),
    cameras: Sequence[Camera] = (),
    voxel_spacing: float | None = None,
    title: str = "",
) -> "Figure":
    """A reconstruction without a truth: the CT, its interval, and its projections beside its radiographs.

    Args:
        volume_hu: Reconstructed CT (X, Y, Z) in HU.
        width_hu: Width of the 90 % interval (X, Y, Z) in HU; None for a method without intervals.
        radiographs: Line integrals (V, H, W) that it was made from.
        reprojections: Line integrals (V, H, W) of the reconstruction for the same cameras.
        view_names: Names of the views.
        cameras: The views, for the letters at their edges; without them a lateral is taken to face left.
        voxel_spacing: Voxel side in mm, for a scale bar.
        title: Heading.
    """
    from matplotlib.figure import Figure

    first = 1 if width_hu is None else 2
    rows = first + len(radiographs)
    figure = Figure(figsize=(9.6, 3.2 * rows + 0.4), layout="constrained", dpi=80)
    axes = np.atleast_2d(figure.subplots(rows, 3))
    volume = planes(volume_hu)
    for axis, (name, image) in zip(axes[0], volume.items()):
        panel: _Panel = (image, WIDE, "gray", f"{name}: reconstruction, HU")
        _show_row(figure, np.array([axis]), [panel], _SIDES[name])
    if width_hu is not None:
        top = max(float(np.quantile(width_hu.detach().cpu().float().numpy(), 0.99)), 1.0)
        for axis, (name, width) in zip(axes[1], planes(width_hu).items()):
            panel = (width, (0.0, top), "magma", "width of the 90 % interval, HU")
            _show_row(figure, np.array([axis]), [panel], _SIDES[name])
    if voxel_spacing:
        _scale_bar(axes[0, 0], volume["axial"].shape, voxel_spacing)
    _show_views(figure, axes[first:], radiographs, reprojections, view_names, cameras)
    if title:
        figure.suptitle(_wrapped(title))
    return figure


def phase_figure(
    average_hu: Tensor, phase_hu: Tensor, prediction_hu: Tensor, index: Sequence[int], *, title: str = ""
) -> "Figure":
    """Time average, phase 0, prediction, and the errors of average and prediction, in three planes.

    Args:
        average_hu: Time average (X, Y, Z) in HU.
        phase_hu: True phase 0.
        prediction_hu: Predicted phase 0.
        index: Voxel (i, j, k) through which the planes go.
        title: Heading.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15.0, 8.6), layout="constrained", dpi=80)
    axes = np.atleast_2d(figure.subplots(3, 5))
    average, phase, prediction = (planes(volume, index) for volume in (average_hu, phase_hu, prediction_hu))
    for row, name in enumerate(phase):
        panels: list[_Panel] = [
            (average[name], WIDE, "gray", f"{name}: time average, HU"),
            (phase[name], WIDE, "gray", "phase 0"),
            (prediction[name], WIDE, "gray", "prediction"),
        ]
        for what, volume in (("average", average), ("prediction", prediction)):
            error = volume[name] - phase[name]
            label = f"{what} - phase 0, mean {np.abs(error).mean():.0f} HU"
            panels.append((error, (-DIFFERENCE, DIFFERENCE), "RdBu_r", label))
        _show_row(figure, axes[row], panels, _SIDES[name])
    if title:
        figure.suptitle(_wrapped(title))
    return figure


def contact_sheet(rows: Sequence[tuple[str, Tensor, Sequence[tuple[str, Tensor]]]]) -> "Figure":
    """One row of pictures for each case: its CT in three planes, then its radiographs.

    Args:
        rows: Name of a case, its CT (1, X, Y, Z) in HU, and name and image (H, W) of its radiographs.
    """
    from matplotlib.figure import Figure

    num_columns = 3 + max(len(radiographs) for _, _, radiographs in rows)
    figure = Figure(figsize=(2.6 * num_columns, 2.8 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), num_columns, squeeze=False)
    for line, (name, cube, radiographs) in zip(axes, rows):
        for axis in line:
            axis.set_xticks([])
            axis.set_yticks([])
        for axis, (plane, image) in zip(line, planes(cube[0]).items()):
            axis.imshow(image, cmap="gray", vmin=WIDE[0], vmax=WIDE[1])
            axis.set_title(plane, fontsize=8)
            _letter(axis, _SIDES[plane])
        for axis, (view, radiograph) in zip(line[3:], radiographs):
            axis.imshow(radiograph.numpy(), cmap="gray")
            axis.set_title(view, fontsize=8)
        line[0].set_ylabel(name, fontsize=8)
    return figure


def lesion_sheet(
    rows: Sequence[tuple[Tensor, Tensor, Tensor, Sequence[int]]], cameras: Sequence[Camera], voxel_spacing: float
) -> "Figure":
    """One row for each patient: the radiographs, and CT and reconstruction through one place, which nothing marks.

    Args:
        rows: Radiographs (V, H, W), CT and reconstruction (X, Y, Z) in HU, and the voxel (i, j, k) of the place.
        cameras: The views.
        voxel_spacing: Voxel side in mm, for a scale bar.
    """
    from matplotlib.figure import Figure

    num_columns, (low, high) = len(cameras) + 4, WIDE
    figure = Figure(figsize=(1.5 * num_columns, 1.5 * len(rows) + 0.4), layout="constrained", dpi=100)
    figure.suptitle(f"line integrals; CT and reconstruction from {low:.0f} to {high:.0f} HU", fontsize=9)
    axes = figure.subplots(len(rows), num_columns, squeeze=False)
    for number, (radiographs, truth, prediction, index) in enumerate(rows):
        line = axes[number]
        panels = [
            (image.numpy(), np.percentile(image, (1, 99.8)), camera.name, _sides_of(camera))
            for image, camera in zip(radiographs, cameras)
        ]
        for plane in ("axial", "coronal"):
            for kind, volume in (("CT", truth), ("reconstruction", prediction)):
                panels.append((planes(volume, index)[plane], np.array(WIDE), f"{kind}, {plane}", _SIDES[plane]))
        for axis, (image, (darkest, brightest), title, sides) in zip(line, panels):
            axis.imshow(image, cmap="gray", vmin=darkest, vmax=brightest)
            axis.set_axis_off()
            _letter(axis, sides)
            if number == 0:
                axis.set_title(title, fontsize=8)
        _scale_bar(line[len(cameras)], truth.shape[:2], voxel_spacing)
    return figure


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Write a figure whole or not at all."""
    path = Path(path)
    with replacing(path) as partial:
        figure.savefig(partial, format=path.suffix.lstrip(".") or "png")


def _wrapped(title: str) -> str:
    """A title whose lines fit the width of three panels."""
    return "\n".join(textwrap.fill(line, LINE_LENGTH) for line in title.splitlines())


def _show_views(
    figure: "Figure",
    axes: np.ndarray,
    radiographs: Tensor,
    reprojections: Tensor | None,
    view_names: Sequence[str],
    cameras: Sequence[Camera] = (),
) -> None:
    """A row for each view: radiograph, and if there is one its reprojection and the residual."""
    for view, row in enumerate(axes):
        name = view_names[view] if view < len(view_names) else f"view {view}"
        measured = np.asarray(radiographs[view].detach().cpu().float())
        limits = (0.0, float(measured.max()))
        panels: list[_Panel] = [(measured, limits, "gray", f"{name}: radiograph, line integral")]
        if reprojections is not None:
            expected = np.asarray(reprojections[view].detach().cpu().float())
            residual = expected - measured
            panels.append((expected, limits, "gray", "reprojection of the prediction"))
            panels.append((residual, (-1.0, 1.0), "RdBu_r", f"residual, RMS {np.sqrt((residual**2).mean()):.2f}"))
        _show_row(figure, row, panels, _sides_of(cameras[view]) if view < len(cameras) else _SIDES.get(name))


def _sides_of(camera: Camera) -> tuple[str, str] | None:
    """Letters at the left and right edge of a view; none if its columns do not run along an axis of the patient."""
    x, y, _ = camera.column_axis
    if max(abs(x), abs(y)) < 0.9:
        return None
    negative, positive = ("L", "R") if abs(x) > abs(y) else ("P", "A")
    return (negative, positive) if x + y > 0 else (positive, negative)


def _show_row(figure: "Figure", axes: np.ndarray, panels: Sequence[_Panel], sides: tuple[str, str] | None) -> None:
    for axis, (image, (low, high), colours, title) in zip(axes, panels):
        shown = axis.imshow(image, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        axis.set_title(title, fontsize=9)
        figure.colorbar(shown, ax=axis, shrink=0.8).ax.tick_params(labelsize=7)
        _letter(axis, sides)
    for axis in axes:
        axis.set_axis_off()


def _letter(axis: "Axes", sides: tuple[str, str] | None) -> None:
    for position, letter in zip((0.03, 0.97), sides or ()):
        axis.text(position, 0.5, letter, color="orange", transform=axis.transAxes, ha="center", va="center", fontsize=9)


def _scale_bar(axis: "Axes", shape: tuple[int, ...], voxel_spacing: float, length: float = 100.0) -> None:
    """A bar of 10 cm in the lower left corner."""
    left, bottom = 0.05 * shape[1], 0.96 * shape[0]
    axis.plot([left, left + length / voxel_spacing], [bottom, bottom], color="orange", linewidth=2)
    axis.text(left, bottom - 0.02 * shape[0], "10 cm", color="orange", fontsize=7, va="bottom")
