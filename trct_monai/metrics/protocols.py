"""How X-ray-to-CT papers measure, exactly: named protocols, never a bare "PSNR".

The same volume reads 21.8, 25.5, 26.1 or 29.6 dB, depending on the script that measures it. Each protocol here is one
of those scripts, worked out from its source and equal to it to 1e-9 on a golden pair. Volumes go in as HU in RAS+
order; a protocol clips and scales them itself.

Let x be the prediction and y the truth in [0, 1] of the protocol's HU window, X = trunc(2500 x), Y = trunc(2500 y).

============== ==========================================================================================
``x2ct``       X2CT-GAN (kylekma/X2CT, 3DGAN/test.py). psnr_3d = 20 log10(4095 / rmse(X - Y)); psnr_avg is the
               mean over the three axes of the mean over slices of 20 log10(4095 / slice rmse); ssim is 2-D,
               7 x 7, range 1 on x and y, mean over slices and axes; mae = ``mean |X - Y|``.
``ccx``        CCX-rayNet. psnr_3d on x and y with peak 4096/2500, psnr_avg on X and Y with peak 4096, ssim as
               x2ct with range 4096/2500.
``psct``       PSCT-Net. As x2ct on X and Y with peak 2500; ssim on X and Y with range 2500 over the slices of the
               axes left-right, left-right and anterior-posterior: an axis bug of that code, kept to compare.
``perx2ct``    PerX2CT. psnr_avg along the first axis with peak 4095 on X and Y; ssim 3-D, 7 x 7 x 7, range 2 (the float
               default of the scikit-image that it pins).
``xmed_paper`` DIF-Net, C2RV, DIF-Gaussian papers. HU clipped to [-1000, 1000]; psnr_3d with peak 1; ssim 3-D, 7 x 7
               x 7, range 2.
``xmed``       The same groups' corrected re-runs: range 1.
``sparc``      SPARC. Integer HU clipped to [-1024, 1024]; psnr_3d with peak 2048 HU; ssim 3-D, range 1 on x and y.
``sax``        SAX-NeRF. psnr_3d with peak 1; ssim 3-D, range 2, on [0, 1].
``hu``         Ours, the headline. HU in the stated window, no truncation; psnr_3d with peak = width of the window; ssim
               3-D, 7 x 7 x 7, range = width; mae in HU.
============== ==========================================================================================

SSIM windows are uniform with the sample covariance, K1 = .01, K2 = .03, the border of 3 voxels dropped (Wang et al.,
IEEE Trans. Image Process. 13(4), 2004, as scikit-image computes it). Where two slices or volumes are equal, the PSNR
is `NO_ERROR` dB, as in X2CT-GAN's script.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log10

import numpy as np
from jaxtyping import Float
from skimage.metrics import structural_similarity

from trct_monai.intensity import HU_WINDOW, check_hu_window

Array = np.ndarray
NO_ERROR = 100.0
"""The PSNR in dB where there is no error."""

SSIM_WINDOW = 7
"""Side of the uniform SSIM window in voxels, as the X-ray-to-CT papers have it."""

LEVELS = 2500.0
AXES = (0, 1, 2)  # superior-inferior, anterior-posterior, left-right, as the papers order a volume (D, H, W)


def psnr(error: Array, peak: float) -> float:
    """20 log10(peak / rmse) in dB; `NO_ERROR` without error."""
    rmse = float(np.sqrt(np.mean(np.square(error))))
    return 20.0 * log10(peak / rmse) if rmse > 0 else NO_ERROR


def slice_psnr(error: Float[Array, "D H W"], peak: float, axes: Sequence[int] = AXES) -> float:
    """Mean over axes of the mean over slices of the PSNR in dB."""
    return float(np.mean([np.mean([psnr(part, peak) for part in np.moveaxis(error, axis, 0)]) for axis in axes]))


def slice_ssim(x: Float[Array, "D H W"], y: Float[Array, "D H W"], span: float, axes: Sequence[int] = AXES) -> float:
    """Mean over axes of the mean over slices of the 2-D SSIM with a uniform 7 x 7 window."""
    means = {
        axis: np.mean([_ssim(a, b, span) for a, b in zip(np.moveaxis(x, axis, 0), np.moveaxis(y, axis, 0))])
        for axis in set(axes)
    }
    return float(np.mean([means[axis] for axis in axes]))


def _ssim(x: Array, y: Array, span: float) -> float:
    return float(structural_similarity(x, y, win_size=SSIM_WINDOW, data_range=span))


def _integers(x: Array) -> Array:
    return np.trunc(LEVELS * x)


@dataclass(frozen=True)
class Protocol:
    """One way to score a prediction.

    Attributes:
        name: Its name in tables.
        hu_window: HU to which both volumes are clipped.
        measure: Scores of (prediction, truth), both (D, H, W) in [0, 1] of the window, float64.
        source: The script or paper that measures so.
    """

    name: str
    hu_window: Sequence[float]
    measure: Callable[[Array, Array], dict[str, float]]
    source: str

    def __call__(self, prediction_hu: Array, truth_hu: Array) -> dict[str, float]:
        """Scores by name: ``psnr_3d`` and ``psnr_avg`` in dB, ``ssim``, ``mae``; each protocol has some of them.

        Args:
            prediction_hu: CT (X, Y, Z) in HU, RAS+ order.
            truth_hu: CT in HU on the same grid.

        Raises:
            ValueError: If the shapes differ, a side is shorter than the SSIM window, or a value is not finite.
        """
        if prediction_hu.shape != truth_hu.shape or prediction_hu.ndim != 3 or min(truth_hu.shape) < SSIM_WINDOW:
            raise ValueError(
                f"{self.name}: prediction and truth must be (X, Y, Z) of one shape, {SSIM_WINDOW} voxels or more a "
                f"side, got {prediction_hu.shape} and {truth_hu.shape}"
            )
        if not (np.isfinite(prediction_hu).all() and np.isfinite(truth_hu).all()):
            raise ValueError(f"{self.name}: volumes must be finite, got NaN or infinity")
        low, high = self.hu_window
        x, y = (
            (np.clip(volume.astype(np.float64), low, high).transpose(2, 1, 0) - low) / (high - low)
            for volume in (prediction_hu, truth_hu)
        )
        return self.measure(x, y)


def _x2ct(x: Array, y: Array) -> dict[str, float]:
    error = _integers(x) - _integers(y)
    return {
        "psnr_3d": psnr(error, 4095.0),
        "psnr_avg": slice_psnr(error, 4095.0),
        "ssim": slice_ssim(x, y, 1.0),
        "mae": float(np.abs(error).mean()),
    }


def _ccx(x: Array, y: Array) -> dict[str, float]:
    span = 4096.0 / LEVELS
    error = _integers(x) - _integers(y)
    return {"psnr_3d": psnr(x - y, span), "psnr_avg": slice_psnr(error, 4096.0), "ssim": slice_ssim(x, y, span)}


def _psct(x: Array, y: Array) -> dict[str, float]:
    error = _integers(x) - _integers(y)
    return {
        "psnr_3d": psnr(error, LEVELS),
        "psnr_avg": slice_psnr(error, LEVELS),
        "ssim": slice_ssim(_integers(x), _integers(y), LEVELS, axes=(2, 2, 1)),
    }


def _perx2ct(x: Array, y: Array) -> dict[str, float]:
    return {"psnr_avg": slice_psnr(_integers(x) - _integers(y), 4095.0, axes=(0,)), "ssim": _ssim(x, y, 2.0)}


def _whole(x: Array, y: Array, span: float) -> dict[str, float]:
    return {"psnr_3d": psnr(x - y, 1.0), "ssim": _ssim(x, y, span)}


def _xmed_paper(x: Array, y: Array) -> dict[str, float]:
    return _whole(x, y, 2.0)


def _xmed(x: Array, y: Array) -> dict[str, float]:
    return _whole(x, y, 1.0)


def _sparc(x: Array, y: Array) -> dict[str, float]:
    # Integer HU of a window 2048 HU wide: the width scales the error and the peak alike.
    x, y = (np.round(2048.0 * volume) / 2048.0 for volume in (x, y))
    return _whole(x, y, 1.0)


def hu_protocol(hu_window: Sequence[float] = HU_WINDOW) -> Protocol:
    """Our own protocol in any HU window."""
    low, high = check_hu_window(hu_window)
    width = high - low

    def measure(x: Array, y: Array) -> dict[str, float]:
        return {**_whole(x, y, 1.0), "mae": float(np.abs(x - y).mean()) * width}

    return Protocol("hu", (low, high), measure, "trct_monai")


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        hu_protocol(),
        Protocol("x2ct", (-1024.0, 1476.0), _x2ct, "X2CT-GAN, Ying et al., CVPR 2019"),
        Protocol("ccx", (-1024.0, 1476.0), _ccx, "CCX-rayNet, Ratul et al., ISBI 2021"),
        Protocol("psct", (-1024.0, 1476.0), _psct, "PSCT-Net, arXiv 2606.19867"),
        Protocol("perx2ct", (-1024.0, 1476.0), _perx2ct, "PerX2CT, Kyung et al., 2023"),
        Protocol("xmed_paper", (-1000.0, 1000.0), _xmed_paper, "DIF-Net, C2RV, DIF-Gaussian papers"),
        Protocol("xmed", (-1000.0, 1000.0), _xmed, "corrected re-runs of DIF-Net, C2RV, DIF-Gaussian"),
        Protocol("sparc", (-1024.0, 1024.0), _sparc, "SPARC"),
        Protocol("sax", HU_WINDOW, _xmed_paper, "SAX-NeRF, Cai et al., CVPR 2024"),
    )
}
"""Every protocol by name, the headline first."""
