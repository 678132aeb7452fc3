"""Radiographs as they come: other exposures, contrasts, noise, blur and collimation."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from trct_monai.physics import degrade


class RandRadiographd(Randomizable, MapTransform):
    """Random changes of line integrals (V, H, W), drawn for each view by itself.

    Gain and gamma stand for what a display or a wrong calibration does to line integrals, noise and blur for the
    detector, collimation for shutters: beyond them there is no signal.

    Args:
        keys: Keys of the radiographs.
        gain: Standard deviation of the factor's logarithm.
        gamma: Standard deviation of the exponent's logarithm; the view's largest value stays.
        photons: Least photons in a pixel without patient, drawn evenly in the logarithm up to a hundred times as many;
            None for no noise.
        blur: Largest standard deviation of the detector's blur in pixels.
        collimation: Largest share of a side that a shutter covers, at each of the four sides.
        prob: Probability of each change.
        allow_missing_keys: Do nothing for a key that is not there.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        gain: float = 0.1,
        gamma: float = 0.1,
        photons: float | None = 1e4,
        blur: float = 1.0,
        collimation: float = 0.1,
        prob: float = 0.3,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if (
            min(gain, gamma, blur) < 0
            or not 0 <= collimation < 0.5
            or not 0 <= prob <= 1
            or (photons is not None and photons <= 0)
        ):
            raise ValueError(
                "gain, gamma and blur must not be negative, photons be positive or None, collimation lie in [0, 0.5) "
                f"and prob in [0, 1], got {gain}, {gamma}, {blur}, {photons}, {collimation} and {prob}"
            )
        self.gain, self.gamma, self.photons, self.blur = gain, gamma, photons, blur
        self.collimation, self.prob = collimation, prob

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items, with changed radiographs; a missing view (NaN) stays missing."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = torch.as_tensor(result[key]).as_subclass(Tensor)
            result[key] = torch.stack([view if view.isnan().any() else self._change(view) for view in image])
        return result

    def _change(self, view: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
        if self._drawn(self.gain):
            view = view * float(self.R.lognormal(0, self.gain))
        if self._drawn(self.gamma):
            top = view.max().clamp(min=1e-6)
            view = top * (view.clamp(min=0) / top) ** float(self.R.lognormal(0, self.gamma))
        photons = (
            self.photons * 100 ** float(self.R.random()) if self.photons and self._drawn(self.photons) else torch.inf
        )
        blur = self.blur * float(self.R.random()) if self._drawn(self.blur) else 0.0
        if photons != torch.inf or blur:
            generator = torch.Generator().manual_seed(int(self.R.randint(2**31)))
            view = degrade(view[None, None], (1.0, 1.0), photons=photons, detector_sigma_mm=blur, generator=generator)[
                0, 0
            ]
        if self._drawn(self.collimation):
            view = collimate(view, [self.collimation * float(self.R.random()) for _ in range(4)])
        return view

    def _drawn(self, strength: float) -> bool:
        return strength > 0 and bool(self.R.random() < self.prob)


def collimate(view: Float[Tensor, "H W"], shares: Sequence[float]) -> Float[Tensor, "H W"]:
    """A radiograph with shutters at its top, bottom, left and right side; under them it takes its largest value.

    Args:
        view: Line integrals.
        shares: Share of the height (top, bottom) and of the width (left, right) that each shutter covers.
    """
    rows, columns = view.shape
    top, bottom, left, right = (round(share * n) for share, n in zip(shares, (rows, rows, columns, columns)))
    result = torch.full_like(view, float(view.max()))
    result[top : rows - bottom, left : columns - right] = view[top : rows - bottom, left : columns - right]
    return result
