"""A CT as a DICOM series, marked as derived and for research only."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from trct_monai import __version__
from trct_monai.io.dicom.header import STUDY, uid_of
from trct_monai.io.files import replacing_folder

DERIVED_CT = {
    "0008|0008": "DERIVED\\SECONDARY\\AXIAL",
    "0008|0016": "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
    "0008|0060": "CT",
    "0008|0005": "ISO_IR 192",  # UTF-8
    "0008|0070": "trct_monai",
    "0018|0060": "",
    "0018|1020": __version__,
    "0018|5100": "HFS",
    "0018|9004": "RESEARCH",
    "0028|1050": "40",
    "0028|1051": "400",
    "0028|1052": "0",
    "0028|1053": "1",
    "0028|1054": "HU",
}
"""Elements of every file of a written series: a derived image, for research."""


RECONSTRUCTED = (
    "CT from radiographs, RESEARCH ONLY",
    "Computed from radiographs by trct_monai: research only, not an examination, not for diagnosis",
)
RESAMPLED = ("Resampled CT, RESEARCH ONLY", "CT cropped and resampled by trct_monai: research only, not for diagnosis")
"""SeriesDescription and DerivationDescription."""


def write_ct_series(
    volume_hu: np.ndarray,
    affine: np.ndarray,
    folder: Path,
    study: Mapping[str, str] | None = None,
    descriptions: tuple[str, str] = RECONSTRUCTED,
) -> list[Path]:
    """Write a CT as a DICOM series, one file for each axial slice, marked as derived and for research only.

    Rows run to the patient's left and columns to the back, as in a scanner's images. The same volume gives the same
    files. The folder appears when all of them are written.

    Args:
        volume_hu: HU (X, Y, Z) from -32768 to 32767; rounded.
        affine: From voxel index to world mm in RAS; its axes run along those of the world.
        folder: The folder to write; empty or absent.
        study: Patient and study by the keywords of `STUDY`; missing ones are empty, but a StudyInstanceUID is made.
        descriptions: SeriesDescription and DerivationDescription.

    Returns:
        The files, from the feet to the head.

    Raises:
        ValueError: If the axes are oblique, a value does not fit 16 bits, the folder holds files, or `study` has an
            unknown keyword.
    """
    import itk

    study = {} if study is None else study
    if unknown := sorted(set(study) - set(STUDY)):
        raise ValueError(f"study may hold {', '.join(STUDY)}, got {', '.join(unknown)}")
    sides = np.diag(affine)[:3]
    if volume_hu.ndim != 3 or not np.allclose(affine[:3, :3], np.diag(sides)) or not (sides > 0).all():
        raise ValueError(f"a series needs a volume (X, Y, Z) with axes along R, A and S, got {affine.tolist()}")
    if not np.isfinite(volume_hu).all() or np.abs(volume_hu).max(initial=0) > 32767:
        raise ValueError("a series holds HU from -32767 to 32767, got a value that is not finite or beyond")
    check_series_folder(folder)
    slices = np.ascontiguousarray(volume_hu[::-1, ::-1].T.round().astype(np.int16))  # (Z, rows, columns)
    corner = affine @ [*(np.array(volume_hu.shape) - 1), 1.0]  # the most right and anterior voxel, top slice
    fixed = DERIVED_CT | {"0008|103e": descriptions[0], "0008|2111": descriptions[1]}
    content = (slices.tobytes(), affine.tobytes(), repr((sorted(study.items()), sorted(fixed.items()))).encode())
    common = fixed | {
        "0018|0050": f"{sides[2]:g}",
        "0018|0088": f"{sides[2]:g}",
        "0020|000e": uid_of(b"series", *content),
        "0020|0052": uid_of(b"frame", *content),
        **{tag: study.get(keyword, "") for keyword, tag in STUDY.items()},
    }
    common["0020|000d"] = common["0020|000d"] or uid_of(b"study", *content)
    with replacing_folder(folder) as partial:
        for number, pixels in enumerate(slices):
            image = itk.image_from_array(pixels[None])
            image.SetSpacing([float(side) for side in sides])
            image.SetOrigin([-float(corner[0]), -float(corner[1]), float(affine[2, 3] + number * sides[2])])  # LPS
            header = image.GetMetaDataDictionary()
            for tag, text in {**common, "0008|0018": uid_of(b"%d" % number, *content)}.items():
                header[tag] = text
            header["0020|0013"] = str(number + 1)
            image_io = itk.GDCMImageIO.New()
            image_io.KeepOriginalUIDOn()
            itk.imwrite(image, str(partial / f"{number + 1:04d}.dcm"), imageio=image_io)
    return sorted(folder.iterdir())


def check_series_folder(folder: Path) -> None:
    """Raise ValueError unless the folder is empty or absent: files of another series would become part of this one."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not an empty folder; a DICOM series gets a new one")
