"""What the scores of a cohort say: means with intervals, warnings, and the printed table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from trct_monai.metrics.conditioning import MIN_CASES, Conditioning
from trct_monai.metrics.statistics import Estimate, bootstrap_mean, skill_score

Row = dict[str, Any]


MEAN_VOLUME = "mean volume"


HEADLINE = "hu.psnr_3d"


def summarize(
    rows: Sequence[Row], name: str, patients: Mapping[str, str], conditioning: Conditioning | None
) -> dict[str, Any]:
    """Means with intervals of every column by method, the skill over the mean volume, and what must be warned of.

    Args:
        rows: Lines of cases.csv; None is no value.
        name: The method's name.
        patients: Whose case it is.
        conditioning: What the probe found, if there were patients enough.
    """
    metrics: dict[str, dict[str, Estimate]] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        whose = [patients[row["case_id"]] for row in own]
        metrics[method] = {}
        for column in dict.fromkeys(key for row in own for key in row if key not in ("method", "case_id")):
            estimate = bootstrap_mean([number_or_nan(row.get(column)) for row in own], whose)
            if estimate is not None:
                metrics[method][column] = estimate
    psnr, reference = (
        {row["case_id"]: row[HEADLINE] for row in rows if row["method"] == method} for method in (name, MEAN_VOLUME)
    )
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
    """What a mean score would hide, as pairs of ``name`` and ``reason``; none for a method that does its work."""
    flags = []

    def warn(name: str, reason: str) -> None:
        flags.append({"name": name, "reason": reason})

    if conditioning is not None and conditioning.ignores_input:
        warn(
            "ignores its input",
            f"its own truth ranks {conditioning.own_truth_rank:.1f} of {conditioning.num_cases} (chance "
            f"{conditioning.chance_rank:.1f}, p = {conditioning.p_value:.2g}), and another patient's radiographs cost "
            f"{conditioning.shuffled_psnr_drop:.2f} dB",
        )
    sides = {
        "left_right": "mirrored left to right",
        "back_front": "turned back to front",
        "down_up": "upside down",
    }
    for side, name in sides.items():
        estimate = metrics.get(f"orientation_{side}")
        if estimate is not None and estimate.mean < 0:
            warn(name, f"what differs between the sides correlates with the truth by {estimate.mean:.2f}, not by 1")
    contrast = metrics.get("contrast_ratio")
    if contrast is not None and contrast.mean < 0.5:
        warn("nearly uniform", f"its voxels vary {contrast.mean:.2f} times as much as those of the truth")
    if skill is not None and skill.high < 0:
        warn("worse than the mean volume", f"skill {skill.mean:.2f} [{skill.low:.2f}, {skill.high:.2f}]")
    own, other = metrics.get("reprojection"), metrics.get("reprojection_shuffled")
    if own is not None and other is not None and own.low > other.mean:
        warn(
            "contradicts its radiographs",
            f"its projections are {own.mean:.1%} off, and {other.mean:.1%} from another patient's radiographs",
        )
    return flags


COLUMNS = {HEADLINE: ("PSNR (dB)", ".2f"), "hu.ssim": ("SSIM", ".3f"), "hu.mae": ("MAE (HU)", ".1f")}
"""What the printed table shows: title and format of a column."""


def format_estimate(estimate: Mapping[str, float], number: str) -> str:
    """Mean and interval, such as ``28.28 [27.90, 28.65]``."""
    return f"{estimate['mean']:{number}} [{estimate['low']:{number}}, {estimate['high']:{number}}]"


def format_summary(summary: Mapping[str, Any]) -> str:
    """The headline as a Markdown table, best PSNR first, the probes in words, and the warnings."""
    metrics, name = summary["metrics"], summary["name"]
    lines = ["| method | cases | " + " | ".join(title for title, _ in COLUMNS.values()) + " |", "|---" * 5 + "|"]
    for method in sorted(metrics, key=lambda method: -metrics[method][HEADLINE]["mean"]):
        cells = [format_estimate(metrics[method][column], number) for column, (_, number) in COLUMNS.items()]
        lines.append(f"| {method} | {metrics[method][HEADLINE]['cases']} | {' | '.join(cells)} |")
    if summary["skill"] is not None:
        lines.append(f"skill over the mean volume: {format_estimate(summary['skill'], '.3f')}")
    own = metrics[name]
    for what in ("reprojection", "held_out_view"):
        if what in own:
            controls = [
                f"{key.removeprefix(what + '_').replace('_', ' ')} {own[key]['mean']:.1%}"
                for key in own
                if key.startswith(f"{what}_")
            ]
            lines.append(f"{what.replace('_', ' ')}: {own[what]['mean']:.1%} off ({', '.join(controls)})")
    probe = summary["conditioning"]
    if probe is not None:
        lines.append(
            f"conditioning: predictions of two patients correlate by {probe['prediction_correlation']:.3f} (truths "
            f"{probe['truth_correlation']:.3f}), vary {probe['variance_ratio']:.2f} times as much; own truth ranks "
            f"{probe['own_truth_rank']:.1f} of {probe['num_cases']}; shuffled radiographs cost "
            f"{probe['shuffled_psnr_drop']:.2f} dB"
        )
    else:
        lines.append(f"conditioning: not measured, it needs {MIN_CASES} patients or more")
    if summary["detectability"]:
        lines += ["", "| planted sphere (mm) | contrast (HU) | seen (AUC) | contrast recovered |", "|---|---|---|---|"]
    lines += [
        f"| {row['diameter_mm']:g} | {row['contrast_hu']:g} | {row['auc']:.2f} | {row['recovered_contrast']:.2f} |"
        for row in summary["detectability"]
    ]
    lines += [f"WARNING: {name} {flag['name']}: {flag['reason']}" for flag in summary["flags"]]
    return "\n".join(lines)


def number_or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
