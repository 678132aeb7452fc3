"""Findings in a CT: what is rare in patients, drawn at random so that a training has seen it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from trct_monai.arguments import suggestion
from trct_monai.variation.anatomy import Anatomy, find_anatomy
from trct_monai.variation.forms import cardiomegaly, scoliosis
from trct_monai.variation.implants import extra_bone, pacemaker, rods, sternal_wires, tubes
from trct_monai.variation.lesions import missing_bone, nodules
from trct_monai.variation.lung_findings import consolidation, effusion, missing_lobe, pneumothorax


class Finding(NamedTuple):
    """How a finding is drawn, and how often.

    Attributes:
        draw: The CT with it, from a CT (1, X, Y, Z) in HU, its anatomy and a source of random numbers.
        probability: Share of the cases with findings that have this one, unless another is given.
        moves: Whether it moves the anatomy, which is then found anew.
    """

    draw: Callable[[Tensor, Anatomy, np.random.RandomState], Tensor]
    probability: float
    moves: bool = False


FINDINGS = {
    "scoliosis": Finding(scoliosis, 0.15, moves=True),
    "cardiomegaly": Finding(cardiomegaly, 0.15, moves=True),
    "pneumothorax": Finding(pneumothorax, 0.1),
    "missing_lobe": Finding(missing_lobe, 0.1),
    "consolidation": Finding(consolidation, 0.15),
    "effusion": Finding(effusion, 0.2),
    "missing_bone": Finding(missing_bone, 0.1),
    "extra_bone": Finding(extra_bone, 0.1),
    "nodules": Finding(nodules, 0.6),
    "rods": Finding(rods, 0.07),
    "pacemaker": Finding(pacemaker, 0.1),
    "sternal_wires": Finding(sternal_wires, 0.1),
    "tubes": Finding(tubes, 0.15),
}
"""In the order in which they are drawn into a CT: first what moves, then what changes tissue, last what is put in."""


def findings_probabilities(given: Mapping[str, float] | None = None) -> dict[str, float]:
    """The probability of each finding.

    Args:
        given: Those that are not the usual ones, by name.

    Raises:
        ValueError: If there is no such finding, or a probability is none.
    """
    result = {name: finding.probability for name, finding in FINDINGS.items()}
    for name, probability in (given or {}).items():
        if name not in FINDINGS:
            raise ValueError(
                f"no finding is called {name}{suggestion(name, FINDINGS)}; there are {', '.join(FINDINGS)}"
            )
        if not 0 <= probability <= 1:
            raise ValueError(f"the probability of {name} must lie in [0, 1], got {probability}")
    return {**result, **(given or {})}


def draw_findings(random: np.random.RandomState, probabilities: Mapping[str, float]) -> list[str]:
    """Names of the findings of a case: each by its own chance, and one at least unless all have none.

    Args:
        random: Source of the random numbers.
        probabilities: As `findings_probabilities` gives them.
    """
    weights = np.array([probabilities[name] for name in FINDINGS], float)
    drawn = random.random(len(weights)) < weights
    one = random.random()
    if weights.any() and not drawn.any():
        drawn[int((np.cumsum(weights) <= one * weights.sum()).sum())] = True
    return [name for name, there in zip(FINDINGS, drawn) if there]


def with_findings(
    ct_hu: Float[Tensor, "1 X Y Z"], spacing: float, names: Sequence[str], random: np.random.RandomState
) -> Float[Tensor, "1 X Y Z"]:
    """A CT with findings; one that has no place in it, such as an effusion in a scan without lungs, is left out.

    Args:
        ct_hu: CT numbers in HU, RAS+; it stays as it is.
        spacing: Voxel side in mm.
        names: Out of `FINDINGS`.
        random: Source of the random numbers.
    """
    result = ct_hu
    for _, changed in one_by_one(ct_hu, spacing, names, random):
        result = changed
    return result


def one_by_one(
    ct_hu: Float[Tensor, "1 X Y Z"], spacing: float, names: Sequence[str], random: np.random.RandomState
) -> Iterator[tuple[Finding, Float[Tensor, "1 X Y Z"]]]:
    """Each finding of `with_findings`, and the CT with it and those before it."""
    anatomy, result = find_anatomy(ct_hu, spacing), ct_hu
    for name, finding in FINDINGS.items():
        if name in names:
            result = finding.draw(result, anatomy, random)
            yield finding, result
            anatomy = find_anatomy(result, spacing) if finding.moves else anatomy
