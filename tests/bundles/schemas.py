"""MONAI's own schema of metadata.json, where its file is at hand."""

import hashlib
import os
import shutil
from pathlib import Path

import monai.bundle
import pytest

from tests.bundles.sources import REPOSITORY

NAME = "meta_schema_20240725.json"


def monais_schema() -> Path:
    """MONAI's own file, as it is published; skips the test where it is not."""
    folder = Path(os.environ.get("TRCT_SHARED", REPOSITORY.parent / "shared")) / "monai"
    if not (folder / NAME).is_file():
        pytest.skip(f"no {NAME} in {folder}; set TRCT_SHARED to the folder above monai/")
    return folder / NAME


def verify_by(schema: Path, bundle: Path, folder: Path) -> None:
    """MONAI's verification of a bundle's metadata, which would download the schema if it had another digest."""
    shutil.copyfile(schema, folder / NAME)
    digest = hashlib.sha256(schema.read_bytes()).hexdigest()
    metadata = str(bundle / "configs" / "metadata.json")
    monai.bundle.verify_metadata(metadata, str(folder / NAME), hash_val=digest, hash_type="sha256")
