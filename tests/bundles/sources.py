"""The bundles of the repository and their overlays, as files."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import monai.bundle

from trct_monai.bundles.overlays import INFERENCE, bases

REPOSITORY = Path(__file__).resolve().parents[2]
COMMON = REPOSITORY / "bundles" / "common"
SCHEMA = REPOSITORY / "tests" / "metadata_schema.json"
BUNDLES = sorted(path.parents[1] for path in (REPOSITORY / "bundles").glob("*/configs/train.json"))
OWN_FILES = {"train.json", "inference.json", "metadata.json"}
RADIOGRAPHS = [bundle for bundle in BUNDLES if bundle.name != "ct_phase_pix2pix"]
SHIPPED = [bundle for bundle in BUNDLES if (bundle / "models" / "small" / "README.md").is_file()]
"""Those that have weights: a new one has none yet, and no code beside it in the benchmarks."""
PHASES = next(bundle for bundle in BUNDLES if bundle not in RADIOGRAPHS)
FOR_ALL = ("evaluate", "multi_gpu", "demo")
"""Overlays that a bundle may have without radiographs."""


def name(value: Any) -> str:
    """What a parametrized test shows of a bundle or an overlay."""
    return value.stem if isinstance(value, Path) else str(value)


def read(path: Path) -> dict[str, Any]:
    """A configuration as it stands in its file."""
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def having(overlay: str) -> list[Path]:
    """The bundles with an overlay of this name."""
    return [bundle for bundle in BUNDLES if (bundle / "configs" / overlay).is_file()]


def overlays(file: str) -> list[tuple[Path, Path]]:
    """Bundles with the overlays, their own and common ones, that go after inference.json alone; or all the others."""
    own = [(b, path) for b in BUNDLES for path in sorted((b / "configs").glob("*.json")) if path.name not in OWN_FILES]
    common = [
        (b, path) for b in BUNDLES for path in sorted(COMMON.glob("*.json")) if b != PHASES or path.stem in FOR_ALL
    ]
    kind = Path(file).stem
    return [pair for pair in own + common if (bases(pair[1]) == {INFERENCE}) == (kind == INFERENCE)]


def verify_metadata(bundle: Path, folder: Path) -> None:
    """MONAI's own verification, which would fetch its schema from the network if there were no such file."""
    shutil.copyfile(SCHEMA, folder / "schema.json")
    digest = hashlib.sha256(SCHEMA.read_bytes()).hexdigest()
    metadata, schema = str(bundle / "configs" / "metadata.json"), str(folder / "schema.json")
    monai.bundle.verify_metadata(metadata, schema, hash_val=digest, hash_type="sha256")
