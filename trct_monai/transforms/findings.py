"""Random findings in a case: in its label and its radiographs together, or in the patient from which both are made."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, generate_spatial_bounding_box
from torch import Tensor

from trct_monai.geometry import DEFAULT_EXTENT, Camera
from trct_monai.intensity import HU_WINDOW, check_hu_window, hu_to_attenuation, hu_to_unit, unit_to_hu
from trct_monai.projector import project
from trct_monai.transforms.cut_cube import EMPHASIS
from trct_monai.variation import draw_findings, findings_probabilities
from trct_monai.variation.findings import one_by_one

FINE_MM = 4.0
"""A label of larger voxels gets its findings on a grid twice as fine."""

EMPHASIS_HU = 500.0
"""Change of a voxel that has the weight of a finding."""

EMPHASIS_ML = 33.5
"""Volume of findings whose voxels have that weight: a sphere of 40 mm."""

MOST_EMPHASIS = 8.0
"""Most by which the voxels of a smaller volume weigh more."""


class RandFindingsd(Randomizable, MapTransform):
    """Findings by chance; see `trct_monai.variation.FINDINGS`. What changes depends on what a case has.

    With a patient, a box in HU as `LoadPatientd` gives it, that is changed, of which label and radiographs are made
    later. Else the label is, and radiographs get the line integrals of what the attenuation has changed by: projection
    is linear. A label is clipped to its window, the radiographs show metal whole. Without radiographs, which are
    rendered later, the label changes alone. A view that is missing (NaN) stays missing.

    With `emphasis` the item ``emphasis`` says by how much a loss shall weigh each voxel more: for each finding the
    change in HU, clipped to the window, over `EMPHASIS_HU`, at most 2, times the square root of `EMPHASIS_ML` over the
    sum of that, at most `MOST_EMPHASIS`; of several findings the most. So of two lesions the smaller one weighs more in
    each voxel, and less in all. What moves the whole anatomy has none, nor has a case without findings.

    It goes before `RandPosed`, for it needs the true cameras, and before `RandRadiographd`.

    Args:
        keys: Keys of labels (1, X, X, X) in [0, 1] of the HU window.
        image_key: Key of their radiographs (V, H, W) as line integrals.
        matrices_key: Key of the matrices (V, 3, 4) of those.
        patient_key: Key of boxes (1, X, Y, Z) in HU.
        spacing: Voxel side of the boxes in mm.
        extent: Side of the labels in mm.
        hu_window: HU of 0 and 1.
        prob: Probability that a case has findings.
        findings: Probability of each of them in such a case, by name, where it is not the usual one.
        emphasis: Add the item ``emphasis``, like the label, or like the box of a patient.

    Raises:
        ValueError: If a finding has no such name, or a probability is none.
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        image_key: str = "image",
        matrices_key: str = "matrices",
        patient_key: str = "patient",
        spacing: float = 2.5,
        extent: float = DEFAULT_EXTENT,
        hu_window: Sequence[float] = HU_WINDOW,
        prob: float = 0.5,
        findings: Mapping[str, float] | None = None,
        emphasis: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys)
        if not 0 <= prob <= 1:
            raise ValueError(f"prob must lie in [0, 1], got {prob}")
        self.image_key, self.matrices_key, self.patient_key = image_key, matrices_key, patient_key
        self.spacing, self.extent, self.hu_window = float(spacing), float(extent), check_hu_window(hu_window)
        self.prob, self.probabilities, self.emphasis = prob, findings_probabilities(findings), emphasis

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items, with findings."""
        result = dict(data)
        changed = self.patient_key if self.patient_key in result else self.first_key(result)
        if self.emphasis:
            result[EMPHASIS] = torch.zeros_like(result[changed].as_subclass(Tensor), dtype=torch.float32)
        if self.R.random() >= self.prob:
            return result
        if changed == self.patient_key:
            self._change_patient(result)
            return result
        for key in self.key_iterator(result):
            label = result[key].as_subclass(Tensor)
            result[key], difference, emphasis = self._in_label(label)
            if self.emphasis:
                result[EMPHASIS] = emphasis
            if self.image_key in result:
                image = result[self.image_key].as_subclass(Tensor)
                size = (int(image.shape[-2]), int(image.shape[-1]))
                matrices = result[self.matrices_key].cpu()
                cameras = [Camera.from_world_to_detector(matrix, size) for matrix in matrices]
                added = project(difference[None], cameras, self.extent / difference.shape[-1])[0]
                result[self.image_key] = image + added.to(image)
        return result

    def _change_patient(self, result: dict[Hashable, Any]) -> None:
        """Draw findings into a box, which keeps its type."""
        box = result[self.patient_key].as_subclass(Tensor)
        changed, emphasis = self._changed(box.float(), self.spacing)
        result[self.patient_key] = changed.to(box) if box.dtype.is_floating_point else changed.round().to(box.dtype)
        if self.emphasis:
            result[EMPHASIS] = emphasis

    def _in_label(
        self, label: Float[Tensor, "1 X X X"]
    ) -> tuple[Float[Tensor, "1 X X X"], Float[Tensor, "1 F F F"], Float[Tensor, "1 X X X"]]:
        """A label with findings, its change of attenuation in 1/mm on a grid that may be finer, and the emphasis."""
        factor = 2 if self.extent / label.shape[-1] > FINE_MM else 1
        before = F.interpolate(unit_to_hu(label.float(), self.hu_window)[None], scale_factor=factor, mode="nearest")[0]
        after, emphasis = self._changed(before, self.extent / before.shape[-1])
        result, difference = label.clone(), torch.zeros_like(before)
        changed = F.max_pool3d((after != before).float(), factor) > 0
        ends = list(zip(*generate_spatial_bounding_box(changed)))
        coarse = (slice(None), *(slice(low, high) for low, high in ends))
        fine = (slice(None), *(slice(factor * low, factor * high) for low, high in ends))
        if all(low < high for low, high in ends):
            means = F.avg_pool3d(hu_to_unit(after[fine], self.hu_window), factor).clamp(0, 1)
            result[coarse] = torch.where(changed[coarse], means.to(label), label[coarse])
            difference[fine] = hu_to_attenuation(after[fine]) - hu_to_attenuation(before[fine])
        return result, difference, F.avg_pool3d(emphasis, factor)

    def _changed(
        self, ct_hu: Float[Tensor, "1 X Y Z"], spacing: float
    ) -> tuple[Float[Tensor, "1 X Y Z"], Float[Tensor, "1 X Y Z"]]:
        """A CT with the findings that are drawn for it, and their emphasis."""
        result, emphasis, window = ct_hu, torch.zeros_like(ct_hu), self.hu_window
        for finding, changed in one_by_one(ct_hu, spacing, draw_findings(self.R, self.probabilities), self.R):
            if self.emphasis and not finding.moves:
                change = changed.clamp(*window) - result.clamp(*window)
                emphasis = emphasis.maximum(emphasised(change, spacing))
            result = changed
        return result, emphasis


def emphasised(change_hu: Float[Tensor, "1 X Y Z"], spacing: float) -> Float[Tensor, "1 X Y Z"]:
    """By how much a loss shall weigh the voxels of a change more; see `RandFindingsd`.

    Args:
        change_hu: What findings have changed, in HU.
        spacing: Voxel side in mm.
    """
    weight = (change_hu.abs() / EMPHASIS_HU).clamp(max=2.0)
    volume_ml = float(weight.sum()) * spacing**3 / 1000
    result: Tensor = weight * min((EMPHASIS_ML / max(volume_ml, 1e-6)) ** 0.5, MOST_EMPHASIS)
    return result
