"""Random radiographs: exposure, contrast, beam hardening, scatter, noise, blur, collimation and 8 bits."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from trct_monai.physics import add_scatter, degrade, harden


class RandRadiographd(Randomizable, MapTransform):
    """Random changes of line integrals (V, H, W), drawn for each view by itself.

    An item ``exposed`` (V,), which views have a known exposure, loses those whose gain, gamma, beam or scatter changed.

    Gain and gamma stand for what a display or a wrong calibration does to line integrals, hardening and tube voltage
    for another beam, scatter, noise and blur for patient and detector, collimation for shutters, behind which there is
    no signal. The window is that of an 8-bit picture: values outside are clipped, the others have 256 steps.

    Args:
        keys: Keys of the radiographs.
        gain: Standard deviation of the factor's logarithm.
        gamma: Standard deviation of the exponent's logarithm; the view's largest value is kept.
        photons: Fewest photons in a pixel without patient, drawn evenly in the logarithm up to a hundred times as many;
            None for no noise.
        blur: Largest standard deviation of the detector's blur in pixels.
        collimation: Largest share of a side that a shutter covers, at each of the four sides.
        hardening: Largest share that the view's largest line integral loses; others lose in proportion to themselves:
            beam hardening in first order (Brooks and Di Chiro, Phys. Med. Biol. 21, 1976).
        scatter: Largest scatter fraction; see `trct_monai.physics.add_scatter`.
        window: Largest share of the view's range that is cut off at either end.
        prob: Probability of each change.
        kvp: Lowest and highest tube voltage in kV, drawn evenly between them, by which line integrals of one energy
            become those of a beam, the patient being of water; see `trct_monai.physics.harden`. None for one energy.
        allow_missing_keys: Ignore a missing key.

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
        hardening: float = 0.1,
        scatter: float = 0.2,
        window: float = 0.05,
        prob: float = 0.3,
        kvp: Sequence[float] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if (
            min(gain, gamma, blur, hardening, scatter, window) < 0
            or max(hardening, scatter) >= 1
            or not 0 <= max(collimation, window) < 0.5
            or collimation < 0
            or not 0 <= prob <= 1
            or (photons is not None and photons <= 0)
        ):
            raise ValueError(
                "gain, gamma and blur must not be negative, photons positive or None, collimation and window within "
                "[0, 0.5), hardening and scatter within [0, 1) and prob within [0, 1], "
                f"got {gain}, {gamma}, {blur}, {photons}, {collimation}, {window}, {hardening}, {scatter} and {prob}"
            )
        if kvp is not None and not (len(kvp) == 2 and 20 < kvp[0] <= kvp[1] <= 150):
            raise ValueError(f"kvp must be two tube voltages above 20 and at most 150 kV, or None, got {tuple(kvp)}")
        self.gain, self.gamma, self.photons, self.blur = gain, gamma, photons, blur
        self.collimation, self.prob = collimation, prob
        self.hardening, self.scatter, self.window, self.kvp = hardening, scatter, window, kvp

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items, with changed radiographs; a missing view (NaN) stays missing."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = torch.as_tensor(result[key]).as_subclass(Tensor)
            changed = [(view, True) if view.isnan().any() else self.changed(view) for view in image]
            result[key] = torch.stack([view for view, _ in changed])
            if "exposed" in result:
                result["exposed"] = result["exposed"] & torch.tensor([kept for _, kept in changed])
        return result

    def change(self, view: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
        """One radiograph, changed on its device; none of its numbers is read."""
        return self.changed(view)[0]

    def changed(self, view: Float[Tensor, "H W"]) -> tuple[Float[Tensor, "H W"], bool]:
        """As `change`, and whether the view has kept its exposure."""
        before = view
        if self._drawn(self.gain):
            view = view * float(self.R.lognormal(0, self.gain))
        if self._drawn(self.gamma):
            top = view.max().clamp(min=1e-6)
            view = top * (view.clamp(min=0) / top) ** float(self.R.lognormal(0, self.gamma))
        if self._drawn(self.hardening):
            view = view * (1 - self.hardening * float(self.R.random()) * view / view.max().clamp(min=1e-6))
        if self.kvp is not None and self._drawn(1.0):
            view = harden(view, float(self.R.uniform(*self.kvp)))
        if self._drawn(self.scatter):
            share, width = self.scatter * float(self.R.random()), view.shape[-1] / 10
            view = add_scatter(view[None, None], (1.0, 1.0), share, sigma_mm=width)[0, 0]
        kept = view is before
        photons = (
            self.photons * 100 ** float(self.R.random()) if self.photons and self._drawn(self.photons) else torch.inf
        )
        blur = self.blur * float(self.R.random()) if self._drawn(self.blur) else 0.0
        if photons != torch.inf or blur:
            generator = torch.Generator(view.device).manual_seed(int(self.R.randint(2**31)))
            view = degrade(view[None, None], (1.0, 1.0), photons=photons, detector_sigma_mm=blur, generator=generator)[
                0, 0
            ]
        if self._drawn(self.collimation):
            view = collimate(view, [self.collimation * float(self.R.random()) for _ in range(4)])
        if self._drawn(self.window):
            view = in_eight_bits(view, *(self.window * float(self.R.random()) for _ in range(2)))
        return view, kept

    def _drawn(self, strength: float) -> bool:
        return strength > 0 and bool(self.R.random() < self.prob)


def collimate(view: Float[Tensor, "H W"], shares: Sequence[float]) -> Float[Tensor, "H W"]:
    """A radiograph with shutters at its top, bottom, left and right side; behind them it has its largest value.

    Args:
        view: Line integrals.
        shares: Share of the height (top, bottom) and of the width (left, right) that each shutter covers.
    """
    rows, columns = view.shape
    top, bottom, left, right = (round(share * n) for share, n in zip(shares, (rows, rows, columns, columns)))
    result = view.max().expand(rows, columns).clone()
    result[top : rows - bottom, left : columns - right] = view[top : rows - bottom, left : columns - right]
    return result


def in_eight_bits(view: Float[Tensor, "H W"], below: float, above: float) -> Float[Tensor, "H W"]:
    """A radiograph as an 8-bit picture would hold it, in its own scale.

    Args:
        view: Line integrals.
        below: Share of the range that is black.
        above: Share of the range that is white.
    """
    bottom, top = view.min(), view.max()
    low, high = bottom + below * (top - bottom), top - above * (top - bottom)
    step = ((high - low) / 255).clamp(min=1e-9)
    return ((view.clamp(low, high) - low) / step).round() * step + low
