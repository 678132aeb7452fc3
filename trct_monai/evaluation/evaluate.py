"""Score a folder of predicted CTs, whoever made them, beside the mean of the training volumes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from trct_monai.evaluation.cohort import evaluate_predictions
from trct_monai.evaluation.columns import HEADLINE
from trct_monai.evaluation.driver import Row
from trct_monai.evaluation.mean_volume import check_name, fit_mean_volume
from trct_monai.evaluation.options import EvaluationOptions
from trct_monai.evaluation.phases import evaluate_phases
from trct_monai.evaluation.predictions import load_pair, prediction_files
from trct_monai.evaluation.scores import CaseRadiographs
from trct_monai.evaluation.summary import format_summary
from trct_monai.figures import comparison_figure, save_figure
from trct_monai.intensity import HU_WINDOW
from trct_monai.io.locks import alone_in


def evaluate(
    *,
    predictions: str,
    datalist: str,
    output: str,
    section: str = "test",
    hu_window: Sequence[float] | str = HU_WINDOW,
    name: str = "prediction",
    size: int | None = None,
    resample: bool = False,
    figures: int = 3,
    num_workers: int = 2,
    lpips: bool = False,
) -> None:
    """Score predicted CTs against a datalist by every protocol and probe, beside the mean volume.

    Writes OUTPUT/cases.csv (a line for each case), OUTPUT/summary.json (means with intervals, conditioning, warnings)
    and pictures of the first cases; docs/evaluation.md explains every column. Scores are kept: the same command goes on
    where it was interrupted.

    Of a datalist of phase pairs it scores predicted phases where the patient moves and elsewhere, beside the identity.

    Args:
        predictions: Folder with one NIfTI in HU for each case: CASE_ID.nii.gz, or a file in a folder CASE_ID.
        datalist: Datalist JSON with the truths; its training section gives the mean volume.
        output: Folder for the results.
        section: Section of the datalist to score.
        hu_window: Lowest and highest HU of the headline protocol, as low,high.
        name: What the predictions are called in the table.
        size: Voxels along each side of the cube at which everything is compared; the size of the CTs if not given.
        resample: Resample predictions on another grid to the CT's, in place of refusing them.
        figures: Number of cases to draw: truth, prediction and difference in three planes, radiographs, reprojections.
        num_workers: Number of processes.
        lpips: Measure LPIPS of phases too; needs `pip install trct-monai[lpips]`.
    """
    options = EvaluationOptions.parse(datalist, section, hu_window, size, resample)
    folder = Path(output)
    if figures < 0:
        raise ValueError(f"figures must not be negative, got {figures}")
    if options.holds_phases:
        if size is not None or resample:
            raise ValueError("--size and --resample are for radiographs; phases are scored on the grid of their CTs")
        with alone_in(folder):
            evaluate_phases(predictions, options, folder, name, figures=figures, num_workers=num_workers, lpips=lpips)
        return
    if lpips:
        raise ValueError("--lpips is for phases; protocols of radiographs to CT do not have it")
    check_name(name)
    cases = options.cases()
    files = prediction_files(predictions, cases)
    with alone_in(folder):
        mean_volume = fit_mean_volume(options, folder)
        summary, rows = evaluate_predictions(predictions, options, folder, name, mean_volume, num_workers)
        for case in cases[:figures]:
            row = next(row for row in rows if row["case_id"] == case["case_id"] and row["method"] == name)
            _draw(case, files[case["case_id"]], options, row, folder)
    print(format_summary(summary))
    print(f"wrote {folder}: cases.csv, summary.json, {min(figures, len(cases))} figures")


def _draw(case: dict[str, Any], path: Path, options: EvaluationOptions, row: Row, folder: Path) -> None:
    prediction, truth = load_pair(case, path, size=options.size, resample=options.resample)
    spacing, radiographs = float(truth.pixdim[0]), CaseRadiographs.of(case)
    views: dict[str, Any] = {}
    if radiographs is not None:
        projections = radiographs.reproject(prediction.as_subclass(Tensor), spacing)
        names = [camera.name for camera in radiographs.cameras]
        views = {"radiographs": radiographs.images, "reprojections": projections, "view_names": names}
    title = f"{case['case_id']}: {row['method']}, {row[HEADLINE]:.1f} dB"
    figure = comparison_figure(truth[0], prediction[0], **views, voxel_spacing=spacing, title=title)
    save_figure(figure, folder / f"{case['case_id']}.png")
