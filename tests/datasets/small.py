"""Small CTs with radiographs, and what `prepare` makes of them."""

import numpy as np
import torch
from PIL import Image

from tests.files import save_nifti
from trct_monai.io.datalist import load_datalist
from trct_monai.preprocessing.cube import CTPreprocessing

SMALL = {"size": 16, "radiograph_size": 32, "num_workers": 0, "fractions": "1/0/0"}
"""Arguments of `prepare` for a quick run."""


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def one_case(folder):
    (case,) = load_datalist(folder / "datalist.json", "training")
    return case


def cube_of(phantom, size=40):
    ct = torch.from_numpy(phantom.ct_hu)[None]
    return CTPreprocessing(size).cubes(ct, [size], torch.from_numpy(phantom.affine))[0]


def save_layout_2(folder, phantom, pictures, name="p1"):
    save_nifti(folder / name / f"{name}.nii.gz", phantom.ct_hu, phantom.affine)
    for suffix, picture in pictures.items():
        if suffix.endswith(".npy"):
            np.save(folder / name / f"{name}{suffix}", picture)
        else:
            Image.fromarray(picture).save(folder / name / f"{name}{suffix}")


def as_8_bit(image):
    return (image / image.max() * 255).round().byte().numpy()
