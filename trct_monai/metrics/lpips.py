"""LPIPS of axial slices, where its package is installed."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

BATCH = 16


@cache
def _model() -> Any:
    try:
        import lpips
    except ImportError as error:
        raise ValueError(
            "LPIPS needs a package that is not installed: pip install 'trct-monai[lpips]' (it brings torchvision, and "
            "fetches AlexNet's weights the first time)"
        ) from error
    return lpips.LPIPS(net="alex", verbose=False).eval()


@torch.no_grad()
def lpips_score(
    prediction_hu: Float[np.ndarray, "X Y Z"], truth_hu: Float[np.ndarray, "X Y Z"], hu_window: Sequence[float]
) -> float:
    """Mean over axial slices of LPIPS with AlexNet (Zhang et al., CVPR 2018), grey in three channels; 0 is equal.

    Args:
        prediction_hu: In HU.
        truth_hu: In HU.
        hu_window: Lowest and highest HU, which become -1 and 1.

    Raises:
        ValueError: If the package ``lpips`` is not installed.
    """
    model = _model()
    low, high = hu_window

    def slices(volume: np.ndarray) -> Tensor:
        unit = torch.from_numpy(np.clip(volume, low, high).astype(np.float32)).sub(low).div(high - low)
        return (2 * unit - 1).permute(2, 0, 1)[:, None].expand(-1, 3, -1, -1)

    pairs = zip(torch.split(slices(prediction_hu), BATCH), torch.split(slices(truth_hu), BATCH))
    return float(torch.cat([model(one, other).flatten() for one, other in pairs]).mean())
