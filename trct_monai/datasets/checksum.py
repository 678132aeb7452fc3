"""The checksum of a data set, and those of the data sets on which methods are compared."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from trct_monai.io.datalist import SECTIONS

BENCHMARKS = {
    "PhantomThorax-64": "8977d8298dfd08c37b745c986fdba273f93b54f8e1e651fbabb7091227850209",
    "PhantomThorax-64 as 0.1.0 made it": "4d5642f6f50e918cdbd76440256c4d99a6f666867f0f9781530332af33078b85",
}
"""Checksums of the data sets on which methods are compared; `phantoms --output FOLDER` makes PhantomThorax-64.

That of 0.1.0 came out on processors with AVX-512 alone; it differs in a few voxels by 1 HU.
"""


def checksum(content: Mapping[str, Any]) -> str:
    """Digest of a data set: its sections, cases, CTs, radiographs and views, whatever the files around the numbers.

    Args:
        content: What `read_datalist` gives, from this version's `phantoms` or `prepare`.

    Raises:
        ValueError: If a case has no digests.
    """
    digest = hashlib.sha256()
    for section in SECTIONS:
        for case in content.get(section, []):
            if "voxels" not in case or "pixels" not in case:
                raise ValueError(f"case {case.get('case_id')} has no digests of voxels and pixels; prepare it again")
            cameras = [[_rounded(value) for value in camera.values()] for camera in case.get("cameras", [])]
            line = [section, case["case_id"], case["voxels"], case["pixels"], cameras]
            digest.update(json.dumps(line).encode())
    return digest.hexdigest()


def describe_checksum(content: Mapping[str, Any]) -> str:
    """One line with the checksum of a data set, and the benchmark that it is, if it is one."""
    digest = checksum(content)
    name = next((name for name, known in BENCHMARKS.items() if known == digest), None)
    return f"checksum {digest}" + (f": the benchmark {name}" if name else "")


def _rounded(value: Any) -> Any:
    """Numbers to 1e-6, in any nesting: the last bits of a cosine differ between machines."""
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return round(value, 6) + 0.0 if isinstance(value, float) else value
