"""What the scores of a cohort show: means with intervals, warnings, and the printed table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import nan
from typing import Any

from trct_monai.evaluation.columns import COLUMNS, HEADLINE
from trct_monai.evaluation.driver import Row
from trct_monai.evaluation.mean_volume import MEAN_VOLUME
from trct_monai.metrics.conditioning import MIN_CASES, Conditioning
from trct_monai.metrics.sharpness import MIN_CONTRAST
from trct_monai.metrics.statistics import Estimate, bootstrap_mean, skill_score

PRINTED = (HEADLINE, "hu.ssim", "hu.mae")
"""Columns of the printed tables."""

MIRRORED = {
    "orientation_left_right": "mirrored left-right",
    "orientation_back_front": "mirrored front-back",
    "orientation_down_up": "upside down",
}
"""Warnings by the column that shows them."""


def values_by_case(rows: Sequence[Row], method: str, column: str) -> dict[str, float]:
    """The values of a method in a column by case; NaN where one is not defined."""
    found = {row["case_id"]: row.get(column) for row in rows if row["method"] == method}
    return {case: nan if value is None else value for case, value in found.items()}


def mean_scores(rows: Sequence[Row], patients: Mapping[str, str]) -> dict[str, dict[str, Estimate | None]]:
    """Mean with interval of every column by method; None where no case has a value.

    Args:
        rows: Lines of cases.csv.
        patients: The patient of each case.
    """
    means: dict[str, dict[str, Estimate | None]] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        columns = dict.fromkeys(key for row in own for key in row if key not in ("method", "case_id"))
        values = {column: values_by_case(own, method, column) for column in columns}
        means[method] = {c: bootstrap_mean([*v.values()], [patients[case] for case in v]) for c, v in values.items()}
    return means


def summarize(
    rows: Sequence[Row], name: str, patients: Mapping[str, str], conditioning: Conditioning | None
) -> dict[str, Any]:
    """Means with intervals of every column by method, the skill over the mean volume, and warnings.

    Args:
        rows: Lines of cases.csv; None where a score is not defined.
        name: The method's name.
        patients: The patient of each case.
        conditioning: Result of the probe, if there were patients enough.
    """
    metrics = {
        method: {column: mean for column, mean in means.items() if mean is not None}
        for method, means in mean_scores(rows, patients).items()
    }
    psnr, reference = (values_by_case(rows, method, HEADLINE) for method in (name, MEAN_VOLUME))
    skill = None
    if reference:
        skill = bootstrap_mean(skill_score([*psnr.values()], [reference[c] for c in psnr]), [patients[c] for c in psnr])
    return {
        "metrics": {m: {column: asdict(value) for column, value in found.items()} for m, found in metrics.items()},
        "skill": None if skill is None else asdict(skill),
        "conditioning": None if conditioning is None else asdict(conditioning),
        "flags": find_flags(metrics[name], skill, conditioning),
    }


def find_flags(
    metrics: Mapping[str, Estimate], skill: Estimate | None, conditioning: Conditioning | None
) -> list[dict[str, str]]:
    """Warnings about what a mean score hides, as pairs of ``name`` and ``reason``; none for a sound method."""
    flags = []

    def warn(name: str, reason: str) -> None:
        flags.append({"name": name, "reason": reason})

    if conditioning is not None and conditioning.ignores_input:
        warn(
            "ignores its input",
            f"the rank of the matching CT is {conditioning.matching_rank:.1f} of {conditioning.num_cases} (chance "
            f"{conditioning.chance_rank:.1f}, p = {conditioning.p_value:.2g}), and the PSNR drops by "
            f"{conditioning.shuffled_psnr_drop:.2f} dB when radiographs are shuffled",
        )
    for column, name in MIRRORED.items():
        estimate = metrics.get(column)
        if estimate is not None and estimate.mean < 0:
            warn(
                name, f"the difference between the two sides correlates with the truth's by {estimate.mean:.2f}, not 1"
            )
    contrast = metrics.get("contrast_ratio")
    if contrast is not None and contrast.mean < 0.5:
        warn("nearly uniform", f"the standard deviation of its voxels is {contrast.mean:.2f} of the truth's")
    if skill is not None and skill.high < 0:
        warn("worse than the mean volume", f"skill {skill.mean:.2f} [{skill.low:.2f}, {skill.high:.2f}]")
    own, other = metrics.get("reprojection"), metrics.get("reprojection_shuffled")
    if own is not None and other is not None and own.low > other.mean:
        warn(
            "contradicts its radiographs",
            f"the relative residual is {own.mean:.1%}, and {other.mean:.1%} with another patient's radiographs",
        )
    return flags


def format_estimate(estimate: Mapping[str, Any], number: str, num_cases: int) -> str:
    """Mean and interval, such as ``28.28 [27.90, 28.65]``, and how many cases have a value unless all have one."""
    text = f"{estimate['mean']:{number}} [{estimate['low']:{number}}, {estimate['high']:{number}}]"
    return text if estimate["cases"] == num_cases else f"{text} ({estimate['cases']} of {num_cases} cases)"


def format_summary(summary: Mapping[str, Any]) -> str:
    """The headline as a Markdown table, best PSNR first, the probes in words, and the warnings."""
    metrics, name, num_cases = summary["metrics"], summary["name"], summary["num_cases"]
    titles = [COLUMNS[column].title for column in PRINTED]
    lines = [f"| method | cases | {' | '.join(titles)} |", "|---" * 5 + "|"]
    for method in sorted(metrics, key=lambda method: COLUMNS[HEADLINE].loss(metrics[method][HEADLINE]["mean"])):
        cells = [format_estimate(metrics[method][column], COLUMNS[column].number, num_cases) for column in PRINTED]
        lines.append(f"| {method} | {metrics[method][HEADLINE]['cases']} | {' | '.join(cells)} |")
    if summary["skill"] is not None:
        lines.append(f"skill over the mean volume: {format_estimate(summary['skill'], '.3f', num_cases)}")
    own = metrics[name]
    for column in ("reprojection", "held_out_view"):
        if column in own:
            controls = [
                f"{key.removeprefix(column + '_').replace('_', ' ')} {own[key]['mean']:.1%}"
                for key in own
                if key.startswith(f"{column}_")
            ]
            title = column.replace("_", " ")
            lines.append(f"relative residual, {title}: {own[column]['mean']:.1%} ({', '.join(controls)})")
    probe = summary["conditioning"]
    if probe is not None:
        lines.append(
            f"conditioning: correlation between predictions of two patients {probe['prediction_correlation']:.3f} "
            f"(truths {probe['truth_correlation']:.3f}); variance over patients {probe['variance_ratio']:.2f} of the "
            f"truths'; rank of the matching CT {probe['matching_rank']:.1f} of {probe['num_cases']}; PSNR drop when "
            f"radiographs are shuffled {probe['shuffled_psnr_drop']:.2f} dB"
        )
    else:
        lines.append(f"conditioning: not measured, it needs {MIN_CASES} patients or more")
    lines += format_detectability(summary["detectability"])
    if summary["sharpness"] is not None:
        found = [f"{name.replace('_', '-')} {text}" for name, text in mtf50_texts(summary["sharpness"]).items()]
        spheres = f"spheres of {summary['sharpness']['diameter_mm']:g} mm"
        lines.append(f"sharpness, MTF50 of {spheres} in line pairs per cm: {', '.join(found)}")
    lines += [f"WARNING: {name} {flag['name']}: {flag['reason']}" for flag in summary["flags"]]
    return "\n".join(lines)


SPHERES = {
    "recovered_contrast": ("contrast recovered", ".2f"),
    "auc": ("seen (AUC)", ".2f"),
    "false_contrast": ("false contrast", ".3f"),
    "place_error_mm": ("place error (mm)", ".1f"),
    "size_ratio": ("size ratio", ".2f"),
    "coverage_90": ("90 % interval holds", ".0%"),
}
"""What tables show of planted spheres: title and format of each measure of `detectability`."""


def format_number(value: float | None, number: str) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else f"{value:{number}}"


def format_detectability(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Planted spheres as a Markdown table, a line for each diameter and contrast; none without spheres."""
    if not rows:
        return []
    titles = ["planted sphere (mm)", "contrast (HU)", *(title for title, _ in SPHERES.values())]
    lines = ["", f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        cells = [f"{row['diameter_mm']:g}", f"{row['contrast_hu']:g}"]
        for name, (_, number) in SPHERES.items():
            cells.append(format_number(row[name], number))
        if row["located_cases"] < row["cases"]:
            cells[2 + list(SPHERES).index("place_error_mm")] += f" ({row['located_cases']} of {row['cases']} cases)"
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def mtf50_texts(sharpness: Mapping[str, Any]) -> dict[str, str]:
    """MTF50 by direction as text: ``> LIMIT`` where it is above all frequencies, a dash where too little comes back."""
    texts = {}
    for name, value in sharpness["mtf50_lp_cm"].items():
        sharp = value is None and sharpness["recovered"][name] >= MIN_CONTRAST
        texts[name] = f"> {sharpness['limit_lp_cm']:.2f}" if sharp else format_number(value, ".2f")
    return texts
