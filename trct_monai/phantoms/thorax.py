"""Thorax CT phantoms: deterministic from a seed, in HU, at any voxel size.

They model anatomy well enough to rank methods and to find errors; they support no clinical claim.
Volumes are (X, Y, Z) in RAS+ order: x grows to the patient's right, y to the front, z to the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from trct_monai.phantoms.findings import FINDINGS, draw_findings, nodule_center, paint_findings
from trct_monai.phantoms.heart import paint_heart, paint_vessels
from trct_monai.phantoms.patient import VERSIONS, draw_patient, stream
from trct_monai.phantoms.shapes import Canvas
from trct_monai.phantoms.skeleton import paint_skeleton
from trct_monai.phantoms.trees import paint_lung_trees
from trct_monai.phantoms.trunk import paint_trunk

ORGANS = ("body", "lungs", "heart", "liver", "aorta", "spine", "bone", "airways")


@dataclass(frozen=True)
class Phantom:
    """A thorax CT with its ground truth.

    Attributes:
        ct_hu: Volume (X, Y, Z) in HU, float32, RAS+.
        affine: Voxel index to world mm, (4, 4) float64; the world's origin is the volume's centre.
        masks: Boolean (X, Y, Z) by name: every one of `ORGANS`, and one for each finding that is present. Organs do not
            overlap, except that `body` contains them all, `bone` a part of `spine`, and `lungs` the small airways.
        description: The drawn parameters in mm, degrees and HU, JSON-serialisable.
    """

    ct_hu: np.ndarray
    affine: np.ndarray
    masks: dict[str, np.ndarray]
    description: dict[str, Any]


def thorax_phantom(
    seed: int,
    size: int = 64,
    extent: float = 320.0,
    phase: float | None = 0.0,
    findings: Sequence[str] | None = None,
    version: int = 1,
) -> Phantom:
    """A thorax phantom in HU.

    Args:
        seed: The patient. The same seed gives the same anatomy at every size and phase and with every finding.
        size: Voxels along each side of the cube.
        extent: Side of the cube in mm.
        phase: Place in the cardiac and respiratory cycle in [0, 1): 0 is end-diastole in inspiration, 0.5 end-systole
            in expiration. None draws it from the seed.
        findings: Names out of `FINDINGS` to show; an empty sequence for a healthy patient; None draws them.
        version: 1, the anatomy of PhantomThorax-64; or 2, chests as large, spines as bent and soft tissue as dense as
            patients have them.

    Raises:
        ValueError: If a name is unknown or a number is out of range.
    """
    _check(seed, size, extent, phase, findings)
    if phase is None:
        phase = float(stream(seed, "phase").random())
    if version not in VERSIONS:
        raise ValueError(f"version must be {' or '.join(map(str, VERSIONS))}, got {version}")
    rest = draw_patient(seed, version)
    patient = replace(draw_findings(rest, findings), phase=float(phase))
    canvas = Canvas(size, extent)
    fields = paint_trunk(canvas, patient)
    paint_lung_trees(canvas, patient, rest)
    paint_heart(canvas, patient, fields)
    paint_vessels(canvas, patient)
    paint_skeleton(canvas, patient, fields)
    found = paint_findings(canvas, patient)
    masks = {name: canvas.organ(name) > 0.5 for name in ORGANS} | found
    affine = np.diag([canvas.spacing] * 3 + [1.0])
    affine[:3, 3] = -(size - 1) / 2 * canvas.spacing
    if VERSIONS[version].soft_hu:
        canvas.ct_hu += np.interp(canvas.ct_hu, *_soft_tissue(VERSIONS[version].soft_hu)).astype(np.float32)
    description = asdict(patient) if version == 1 else {"version": version, **asdict(patient)}
    if "nodule" in patient.findings:
        description["findings"]["nodule"]["center_mm"] = nodule_center(patient).tolist()
    return Phantom(canvas.ct_hu, affine, masks, description)


def _soft_tissue(change: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """HU, and what is added to them: all of the change to muscle and organs, nothing to fat, contrast agent, bone."""
    return (-60.0, 20.0, 70.0, 150.0), (0.0, change, change, 0.0)


def phantom_series(
    seed: int,
    size: int = 64,
    num_phases: int = 8,
    extent: float = 320.0,
    findings: Sequence[str] | None = None,
    version: int = 1,
) -> np.ndarray:
    """The 4-D CT of one phantom, (num_phases, X, Y, Z) float32 in HU, at phases 0, 1 / num_phases, ...

    Its mean over the first axis is the time average; its first volume is phase 0.
    """
    if num_phases < 1:
        raise ValueError(f"num_phases must be at least 1, got {num_phases}")
    phases = [index / num_phases for index in range(num_phases)]
    return np.stack([thorax_phantom(seed, size, extent, phase, findings, version).ct_hu for phase in phases])


def _check(seed: int, size: int, extent: float, phase: float | None, findings: Sequence[str] | None) -> None:
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be an integer from 0 up, got {seed}")
    if not isinstance(size, int | np.integer) or size < 8:
        raise ValueError(f"size must be an integer of at least 8, got {size}; use 64, 128 or 256")
    if not 0 < extent < np.inf:
        raise ValueError(f"extent must be a positive length in mm, got {extent}; use 320")
    if phase is not None and not 0 <= phase < 1:
        raise ValueError(f"phase must be within [0, 1), got {phase}; give it modulo 1")
    if isinstance(findings, str):
        raise ValueError(f"findings must be a sequence of names, got the string {findings!r}; write [{findings!r}]")
    unknown = sorted(set(findings or ()) - set(FINDINGS))
    if unknown:
        raise ValueError(f"unknown findings {', '.join(unknown)}; choose from {', '.join(FINDINGS)}")
