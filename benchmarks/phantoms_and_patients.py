"""How phantoms differ from patients, by what can be measured in both.

    python benchmarks/phantoms_and_patients.py --cts FOLDER[,FOLDER...] --output OUT

Every CT is brought to the cube of 320 mm on its lungs, at 2.5 mm; phantoms are drawn at that size and centred in the
same way. Measured are lungs, outline, tissues, mediastinum, spine, ribs and radiographs, one number each; and how much
of the variance of either kind the principal components of the other leave unexplained. It writes
`phantoms_and_patients.csv`, a row for each volume, and prints the table: means, standard deviations, and their
difference in standard deviations of the patients. A handful of patients tells which differences are large, and no more.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import fire
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from tqdm import tqdm

from trct_monai.datasets import ct_cases
from trct_monai.geometry import DEFAULT_EXTENT, preset
from trct_monai.intensity import hu_to_unit
from trct_monai.io.ct import read_ct
from trct_monai.io.files import write_csv
from trct_monai.networks.linear_start import LinearStart
from trct_monai.phantoms import thorax_phantom
from trct_monai.preprocessing import CTPreprocessing
from trct_monai.preprocessing.body import find_body
from trct_monai.projector import project_hu

SIZE, SPACING = 128, 2.5
NUM_MODES = 64
BONE_HU = 200.0

Row = dict[str, float]


def measure(ct_hu: Tensor) -> Row:
    """What is measured in one cube (X, X, X) of HU, its lungs in the middle."""
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    body = find_body(ct_hu, affine)
    if body is None or body.lungs is None:
        raise ValueError("no body, or no lungs")
    hu = ct_hu.numpy()
    inside = ndimage.zoom(body.mask.astype(np.float32), np.array(hu.shape) / body.mask.shape, order=1) > 0.5
    low, high = ((body.lungs - body.affine[:3, 3]) / SPACING).round().astype(int).clip(0, SIZE - 1)
    between = slice(low[2], high[2] + 1)
    chest, mask = hu[:, :, between], inside[:, :, between]
    lung = mask & (chest < -500) & (chest > -960)
    middle = lung.shape[2] // 2
    width, depth = (np.ptp(np.flatnonzero(mask[:, :, middle].any(axis=axis))) + 1 for axis in (1, 0))
    soft, fat, bone = (
        (chest > -20) & (chest < 150) & mask,
        (chest > -150) & (chest < -50) & mask,
        (chest > BONE_HU) & mask,
    )
    litre = SPACING**3 * 1e-6
    whole = float(mask.sum())
    return {
        "lung volume (l)": float(lung.sum()) * litre,
        "lung width (mm)": float(body.lungs[1, 0] - body.lungs[0, 0]),
        "lung depth (mm)": float(body.lungs[1, 1] - body.lungs[0, 1]),
        "lung height (mm)": float(body.lungs[1, 2] - body.lungs[0, 2]),
        "lung (HU, median)": float(np.median(chest[lung])),
        "lung (HU, standard deviation)": float(chest[lung].std()),
        "body width (mm)": float(width * SPACING),
        "body depth (mm)": float(depth * SPACING),
        "fat (% of the chest)": 100 * float(fat.sum()) / whole,
        "soft tissue (HU, median)": float(np.median(chest[soft])),
        "soft tissue (HU, standard deviation)": float(chest[soft].std()),
        "bone (% of the chest)": 100 * float(bone.sum()) / whole,
        "bone (HU, mean)": float(chest[bone].mean()),
        "mediastinum (share of the lungs' width)": _mediastinum(lung, high[0] - low[0] + 1),
        "spine's curve (mm)": _spine(bone),
        **_ribs(bone, low, high),
        **_radiographs(ct_hu),
    }


def _mediastinum(lung: np.ndarray, width: int) -> float:
    """Width of what lies between the lungs, a third of their height above the base, in front of the spine."""
    level = lung[:, :, lung.shape[2] // 3]
    row = level[:, level.shape[1] // 2 :].sum(axis=1) > 0  # the anterior half
    gap = np.flatnonzero(~row[width // 4 + (len(row) - width) // 2 : len(row) - (len(row) - width) // 2 - width // 4])
    return float(len(gap)) / width


def _spine(bone: np.ndarray) -> float:
    """How far the middle of the spine's bone moves along y from the top to the base, in mm."""
    center = bone.shape[0] // 2
    column = bone[center - 10 : center + 10, : bone.shape[1] // 2]
    weights = column.sum(axis=0).astype(float)
    position = (np.arange(weights.shape[0])[:, None] * weights).sum(axis=0) / np.maximum(weights.sum(axis=0), 1)
    smooth = ndimage.gaussian_filter1d(position[weights.sum(axis=0) > 0], 4)
    return float(np.ptp(smooth)) * SPACING if len(smooth) else 0.0


def _ribs(bone: np.ndarray, low: np.ndarray, high: np.ndarray) -> Row:
    """Cross-sections of ribs in the sagittal planes through the middle of either lung, behind."""
    counts, areas = [], []
    for x in (low[0] + (high[0] - low[0]) // 4, high[0] - (high[0] - low[0]) // 4):
        labels, _ = ndimage.label(bone[x, : bone.shape[1] // 2])
        sizes = np.bincount(labels.ravel())[1:]
        sizes = sizes[sizes >= 4]
        counts.append(len(sizes))
        areas += sizes.tolist()
    return {
        "ribs behind a lung": float(np.mean(counts)),
        "a rib's section (mm^2)": float(np.mean(areas or [0])) * SPACING**2,
    }


def _radiographs(ct_hu: Tensor) -> Row:
    """Largest line integral of the frontal view, and what of it is fine."""
    image = project_hu(ct_hu[None], preset("x2ct", SIZE), SPACING)[0].numpy()
    fine = image - ndimage.gaussian_filter(image, 2)
    body = image > 1
    return {
        "frontal view (line integral, 95 %)": float(np.quantile(image[body], 0.95)),
        "frontal view's detail (standard deviation)": float(fine[body].std()),
    }


def unexplained(volumes: Sequence[Tensor], others: Sequence[Tensor]) -> list[float]:
    """Share of each volume's variance about the others' mean that their principal components leave unexplained."""
    start = LinearStart(NUM_MODES, extent=DEFAULT_EXTENT)
    start.fit(others)
    basis, _ = torch.linalg.qr(start.modes[start.modes.flatten(1).any(dim=1)].flatten(1).T)
    shares = []
    for volume in volumes:
        difference = (torch.nn.functional.adaptive_avg_pool3d(volume, start.mean.shape[-1]) - start.mean[0]).flatten()
        rest = difference - basis @ (basis.T @ difference)
        shares.append(float(rest.square().sum() / difference.square().sum()))
    return shares


def phantoms_and_patients(
    cts: str | Sequence[str], output: str, phantoms: int = 60, seed: int = 700_000, version: int = 1
) -> None:
    """Measure, write and print.

    Args:
        cts: Folders of CTs, separated by commas.
        output: Folder to write.
        phantoms: How many are drawn.
        seed: Of the first one.
        version: Of the phantoms.
    """
    protocol = CTPreprocessing(SIZE, center="lungs")
    rows: list[dict[str, object]] = []
    cubes: dict[str, list[Tensor]] = {"patient": [], "phantom": []}

    def take(kind: str, name: str, ct_hu: Tensor, affine: Tensor) -> None:
        cube = protocol.cubes(ct_hu, [SIZE], affine)[0].as_tensor().float()
        rows.append({"kind": kind, "name": name, **measure(cube[0])})
        cubes[kind].append(hu_to_unit(cube))

    for case in tqdm(ct_cases(cts), desc="CTs", unit="CT"):
        ct = read_ct(case["patient"], [Path(file) for file in case["files"]])
        take("patient", case["case_id"], ct.ct_hu, ct.affine)
    # A phantom is a cube already, which the protocol would leave where it is: one voxel more, and it is not.
    for index in tqdm(range(phantoms), desc="phantoms", unit="phantom"):
        phantom = thorax_phantom(seed + index, SIZE, findings=[], version=version)
        ct_hu = torch.nn.functional.pad(torch.from_numpy(phantom.ct_hu)[None].float(), (0, 1), value=-1000.0)
        take("phantom", str(seed + index), ct_hu, torch.from_numpy(phantom.affine))
    for kind, other in (("patient", "phantom"), ("phantom", "patient")):
        own = [row for row in rows if row["kind"] == kind]
        for row, share in zip(own, unexplained(cubes[kind], cubes[other])):
            row["variance that the others' components leave (%)"] = 100 * share
    write_csv(Path(output) / "phantoms_and_patients.csv", rows)
    print(table(rows))


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Means and standard deviations of both kinds, the largest difference first, as Markdown."""
    names = [name for name in rows[0] if name not in ("kind", "name")]

    def values(kind: str, name: str) -> np.ndarray:
        return np.array([float(str(row[name])) for row in rows if row["kind"] == kind])

    lines = []
    for name in names:
        patients, phantoms = values("patient", name), values("phantom", name)
        apart = (phantoms.mean() - patients.mean()) / max(float(patients.std(ddof=1)), 1e-9)
        both = (f"{part.mean():.3g} ({part.std(ddof=1):.2g})" for part in (patients, phantoms))
        lines.append((abs(apart), f"| {name} | {' | '.join(both)} | {apart:+.1f} |"))
    header = ["| | patients | phantoms | apart, in standard deviations of the patients |", "|---|---|---|---|"]
    return "\n".join([*header, *(line for _, line in sorted(lines, reverse=True))])


if __name__ == "__main__":
    fire.Fire(phantoms_and_patients)
