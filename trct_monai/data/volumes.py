"""CTs of any format into a network that changes volumes, and the changed volumes back onto the CTs' own grids."""

import json
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from trct_monai.data.cases import digest_file, write_nifti
from trct_monai.data.datalist import write_atomically
from trct_monai.data.dicom import find_series
from trct_monai.data.phases import ct_source, find_cts
from trct_monai.data.readers import read_ct
from trct_monai.data.sources import Source
from trct_monai.intensity import HU_WINDOW, hu_to_unit, unit_to_hu
from trct_monai.transforms.resampling import to_ras


def find_volumes(paths: str | Sequence[str], min_slices: int = 4) -> list[dict[str, str]]:
    """CTs as cases for inference, ``case_id`` and ``image``: files, folders with one series or file, folders of such.

    Each is read to see whether it can be; what cannot be used is named in one line, and the others go on.

    Args:
        paths: One path, or several.
        min_slices: Shorter DICOM series do not count.

    Raises:
        FileNotFoundError: If a path is missing.
        ValueError: If no CT is found, or two have one name.
    """
    sources: dict[str, Source] = {}
    num_refused = 0
    for path in [Path(paths)] if isinstance(paths, str) else [Path(path) for path in paths]:
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such CT or folder of CTs")
        found, refused = _in_path(path, min_slices)
        for name, source in found.items():
            try:
                read_ct(source)
            except (ValueError, OSError) as error:
                refused.append(" ".join(str(error).split()))
                continue
            if name in sources:
                both = f"{sources[name].path} and {source.path}"
                raise ValueError(f"{both} have one name; give each its own --output_dir")
            sources[name] = source
        for line in refused:
            print(f"refused  {line}")
        num_refused += len(refused)
    print(f"{len(sources)} CTs, {num_refused} refused")
    if not sources:
        raise ValueError("found no CT to work on: pass --volumes FILE, or a folder of CTs")
    return [{"case_id": name, "image": str(source.path)} for name, source in sources.items()]


def _in_path(path: Path, min_slices: int) -> tuple[dict[str, Source], list[str]]:
    """The CT that a path is, or those in the folder that it is, and a line for each entry that is none."""
    if path.is_dir() and not find_series(path, min_slices):
        return find_cts(path, min_slices)
    try:
        source = ct_source(path, min_slices)
    except ValueError as error:
        return {}, [str(error)]
    return {source.case_id: source}, []


def without_results(
    cases: Sequence[Mapping[str, str]], output_dir: str | os.PathLike[str], made_by: Mapping[str, Any]
) -> list[dict[str, str]]:
    """The cases whose result, CASE_ID.nii.gz, is not in a folder yet: the same command goes on where it stopped.

    OUTPUT_DIR/made_by.json says what made the results there.

    Args:
        cases: With ``case_id`` and ``image``.
        output_dir: Where results lie.
        made_by: The checkpoint's path under ``checkpoint``, and every number that the result depends on.

    Raises:
        ValueError: If the results there were made by another model or of other CTs.
    """
    folder = Path(output_dir)
    page: dict[str, Any] = json.loads(json.dumps({key: value for key, value in made_by.items()}))
    checkpoint = Path(str(page.pop("checkpoint", "")))
    page["model"] = digest_file(checkpoint) if checkpoint.is_file() else None
    note = folder / "made_by.json"
    before = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {**page, "cases": {}}
    done = [case for case in cases if (folder / f"{case['case_id']}.nii.gz").is_file()]
    known = before.pop("cases")
    if done and (before != page or any(known.get(case["case_id"]) != case["image"] for case in done)):
        raise ValueError(f"{folder} holds results of another model or of other CTs; use another --output_dir")
    folder.mkdir(parents=True, exist_ok=True)
    known |= {case["case_id"]: case["image"] for case in cases}
    write_atomically(note, json.dumps({**page, "cases": known}, indent=1) + "\n")
    if done:
        print(f"{len(done)} of {len(cases)} are in {folder} already")
    return [dict(case) for case in cases if case not in done]


class LoadCTd(MapTransform):
    """Read CTs as networks take them: (1, X, Y, Z) in [0, 1] of the window, axes in RAS order.

    Args:
        keys: Keys of paths, of files in any format or folders with one DICOM series; the volumes take their place.
        hu_window: Lowest and highest HU.
    """

    def __init__(self, keys: KeysCollection = "image", hu_window: Sequence[float] = HU_WINDOW) -> None:
        super().__init__(keys)
        self.hu_window = hu_window

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items with volumes."""
        result = dict(data)
        for key in self.key_iterator(result):
            ct = read_ct(ct_source(result[key]))
            volume, _ = to_ras(ct.ct_hu[0], ct.affine.numpy())
            result[key] = hu_to_unit(volume.float(), self.hu_window)[None].contiguous()
        return result


class SaveChangedCTd(MapTransform):
    """Write a changed CT as OUTPUT_DIR/CASE_ID.nii.gz: shape, axes and affine of the CT, HU as int16.

    What is written is the CT in its own HU, and what the network changed in it: beyond the window's ends, and where
    nothing was changed, the values are those of the file.

    Args:
        keys: Keys of predictions (1, X, Y, Z) in [0, 1], axes in RAS order.
        output_dir: Folder, made if need be.
        hu_window: Lowest and highest HU.
        source_key: Key of the CT's path.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | os.PathLike[str],
        hu_window: Sequence[float] = HU_WINDOW,
        source_key: str = "source",
    ) -> None:
        super().__init__(keys)
        self.output_dir, self.hu_window, self.source_key = Path(output_dir), hu_window, source_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the volumes; the items stay as they are.

        Raises:
            ValueError: If a prediction holds NaN.
        """
        for key in self.key_iterator(dict(data)):
            ct = read_ct(ct_source(data[self.source_key]))
            affine = ct.affine.numpy()
            original = to_ras(ct.ct_hu[0], affine)[0].float()
            predicted = unit_to_hu(data[key].as_subclass(Tensor)[0].float().cpu(), self.hu_window)
            if not bool(predicted.isfinite().all()):
                raise ValueError(f"{data['case_id']}: the result holds values that are not finite; nothing was written")
            changed = original + predicted - original.clamp(*self.hu_window)
            back = nibabel.orientations.ornt_transform(
                nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.io_orientation(affine)
            )
            numbers = nibabel.orientations.apply_orientation(changed.numpy(), back)
            self.output_dir.mkdir(parents=True, exist_ok=True)
            partial = self.output_dir / f".{data['case_id']}.partial.nii.gz"
            write_nifti(partial, np.round(numbers).clip(-32768, 32767).astype(np.int16), affine)
            partial.replace(self.output_dir / f"{data['case_id']}.nii.gz")
        return dict(data)
