"""Arrays as text in HTML: quantised, differences along the last axis, deflated, base64; `pictures.js` decodes them."""

import base64
import zlib
from typing import Any

import numpy as np
from jaxtyping import Num

Array = np.ndarray

MIDDLE = np.uint16(128)
"""Added to the differences: small ones of either sign then share one high byte, which costs nothing."""


def encode(values: Num[Array, "*shape"], low: float, high: float, step: float) -> dict[str, Any]:
    """An array as JSON takes it: value = offset + step * n, n from 0 to 65535.

    The error of a value between `low` and `high` is at most half a step; others become the nearer end.

    Args:
        values: Any numbers.
        low: Lowest value.
        high: Highest value.
        step: Distance of two values that the page can tell apart.

    Raises:
        ValueError: If the range has more than 65536 steps.
    """
    if not step > 0 or (high - low) / step > 65535:
        raise ValueError(f"a range from {low} to {high} cannot be cut into steps of {step}: at most 65536 of them")
    numbers = np.round((np.clip(values, low, high) - low) / step).astype(np.uint16)
    differences = np.diff(numbers, axis=-1, prepend=np.uint16(0)).ravel() + MIDDLE  # modulo 65536
    planes = np.concatenate([differences & 0xFF, differences >> 8]).astype(np.uint8)
    packed = base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode("ascii")
    return {"shape": list(values.shape), "offset": low, "step": step, "data": packed}
