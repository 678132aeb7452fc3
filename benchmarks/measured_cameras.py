"""PSNR of bundles that were trained on measured cameras against true ones, on phantoms.

    python benchmarks/measured_cameras.py --output OUT

Each phantom is seen by two cameras of its own, drawn at random: a field of 360 to 480 mm, a source at .9 to 2.1 m, up
to 5 degrees turned and 10 mm shifted. A measured camera is the true one with an error like that of a registration:
source distance and field are wrong together, turn and shift by themselves, all scaled so that the cube's centre and
corners project wrong by `error_mm` in the mean, as mm in the patient. The radiographs are the same. Each bundle is
trained twice with the same seed and steps, once on either datalist, and scored on the same test phantoms. Scores with
`control` times the error show what it would cost if it mattered. It writes `measured_cameras.csv`.
"""

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import radians
from pathlib import Path
from statistics import mean

import fire
import monai.bundle
import nibabel
import torch
from torch import Tensor

from trct_monai.datasets import phantoms
from trct_monai.geometry import DEFAULT_EXTENT, Camera, make_camera, rigid_motion
from trct_monai.io import SECTIONS, load_datalist, read_datalist, save_datalist, save_radiograph
from trct_monai.io.files import write_csv
from trct_monai.projector import project_hu
from trct_monai.registration.camera import POINTS

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
TURN_DEG, SHIFT_MM, DISTANCE, FIELD = 0.4, 1.5, 0.05, 0.003
"""Standard deviations of an error before it is scaled: turn, shift, and shares of source distance and of field."""


def measured_cameras(
    output: str,
    bundles: str = "any_view,two_stage",
    split: str = "96/8/24",
    size: int = 64,
    radiograph_size: int = 128,
    error_mm: float = 1.5,
    control: float = 4.0,
    epochs: int = 10,
    seed: int = 0,
    threads: int = 2,
) -> None:
    """Make both datalists, train each bundle on either, and score.

    Args:
        output: Folder to write; data that are there already are used again.
        bundles: Names of bundles with an overlay small.json.
        split: Phantoms for training, validation and test.
        size: Voxels along each side.
        radiograph_size: Pixels along each side.
        error_mm: Mean error of the projected centre and corners of the cube.
        control: Factor of the errors in the last score.
        epochs: Epochs of each training; 4 cases a step.
        seed: Of cameras and trainings.
        threads: Threads of each training.
    """
    torch.set_num_threads(threads)
    folder = Path(output).absolute()
    errors = {"true": 0.0, "measured": error_mm, "control": control * error_mm}
    datalists = {name: folder / f"{name}.json" for name in errors}
    if not all(path.is_file() for path in datalists.values()):
        phantoms(str(folder / "phantoms"), size=size, radiograph_size=16, split=split, num_workers=threads)
        _write_datalists(folder, datalists, errors, radiograph_size, seed)
    rows = []
    for bundle in bundles.split(","):
        for trained_on in ("true", "measured"):
            run = folder / f"{bundle}_{trained_on}"
            options: dict[str, object] = {
                "volume_size": size, "radiograph_size": radiograph_size, "epochs": epochs, "val_interval": epochs,
                "batch_size": 4, "seed": seed, "output_dir": str(run), "ckpt_path": str(run / "model.pt"),
                **({"step_size": radiograph_size} if bundle == "any_view" else {}),
            }  # fmt: skip
            start = time.monotonic()
            _run(bundle, [], options | {"datalist": str(datalists[trained_on])})
            seconds = time.monotonic() - start
            for tested_on in errors:
                _run(bundle, ["evaluate"], options | {"datalist": str(datalists[tested_on])})
                with open(run / "evaluation" / "psnr_raw.csv", encoding="utf-8") as file:
                    scores = [float(list(row.values())[-1]) for row in csv.DictReader(file)]
                rows.append(
                    {"bundle": bundle, "trained_on": trained_on, "tested_on": tested_on, "error_mm": errors[tested_on],
                     "psnr": round(mean(scores), 3), "cases": len(scores), "epochs": epochs, "seconds": round(seconds)}
                )  # fmt: skip
                print(rows[-1], flush=True)
                write_csv(folder / "measured_cameras.csv", rows)


def random_camera(view: str, azimuth_deg: float, size: int, generator: torch.Generator) -> Camera:
    """A camera as people have them, near a frontal or lateral one."""
    field, distance, turn, up, left = (torch.rand(5, generator=generator) * 2 - 1).tolist()
    side, sod = 420 + 60 * field, 1500 + 600 * distance
    camera = make_camera(
        view, azimuth_deg + 5 * turn, sod=sod, sdd=sod + 250, detector_extent=(side, side), size=(size, size)
    )
    return camera.shifted((10 * left, 10 * left, 10 * up))


def mistaken(camera: Camera, error_mm: float, generator: torch.Generator) -> Camera:
    """The camera with an error whose mean over the cube's centre and corners is `error_mm` in the patient."""
    draws = torch.randn(8, generator=generator, dtype=torch.float64)
    scale = error_mm
    result = camera
    for _ in range(4 if error_mm else 0):  # nearly linear in the scale
        result = _moved(camera, draws * scale)
        scale *= error_mm / projection_error(camera, result)
    return result


def projection_error(camera: Camera, other: Camera) -> float:
    """Mean distance in mm, at the isocentre, of where two cameras project the cube's centre and corners."""
    half = torch.tensor([spacing * n / 2 for spacing, n in zip(camera.pixel_spacing[::-1], camera.size[::-1])])
    distances = (_projected(camera, POINTS) - _projected(other, POINTS)) * half  # of the picture, which both share
    return float(distances.norm(dim=-1).mean()) / _magnification(camera)


def _moved(camera: Camera, draws: Tensor) -> Camera:
    """A camera that is wrong by so many of the standard deviations."""
    assert camera.source is not None
    factor = float(1 + DISTANCE * draws[6].clamp(-3, 3))
    far = replace(camera, source=tuple(factor * x for x in camera.source))
    field = _magnification(far) / _magnification(camera) * float(1 + FIELD * draws[7])
    height, width = camera.pixel_spacing
    wrong = replace(far, pixel_spacing=(height * field, width * field))
    motion = rigid_motion(radians(TURN_DEG) * draws[:3], SHIFT_MM * draws[3:6])
    return Camera.from_world_to_detector(wrong.world_to_detector() @ motion, camera.size, camera.name)


def _magnification(camera: Camera) -> float:
    """From the isocentre to the detector."""
    assert camera.source is not None
    source, detector = (sum(a * b for a, b in zip(p, camera.normal)) for p in (camera.source, camera.detector_center))
    return (detector - source) / -source


def _projected(camera: Camera, points: Tensor) -> Tensor:
    """Where points (N, 3) fall on the picture: (u, v) in [-1, 1]."""
    homogeneous = torch.nn.functional.pad(points, (0, 1), value=1.0) @ camera.world_to_detector().T
    return homogeneous[:, :2] / homogeneous[:, 2:]


def _write_datalists(
    folder: Path, datalists: dict[str, Path], errors: dict[str, float], radiograph_size: int, seed: int
) -> None:
    """The same cases and radiographs with cameras that are wrong by these errors."""
    source = folder / "phantoms" / "datalist.json"
    header = {key: value for key, value in read_datalist(source).items() if key not in SECTIONS}
    generator = torch.Generator().manual_seed(seed)
    sections: dict[str, dict[str, list[dict[str, object]]]] = {name: {} for name in errors}
    for section in SECTIONS:
        for case in load_datalist(source, section):
            volume = torch.from_numpy(nibabel.load(case["label"]).get_fdata()).float()[None]
            cameras = [random_camera(v, a, radiograph_size, generator) for v, a in (("pa", 0.0), ("lat", 90.0))]
            images = project_hu(volume, cameras, DEFAULT_EXTENT / volume.shape[-1])
            paths = [folder / "radiographs" / f"{case['case_id']}_{camera.name}.png" for camera in cameras]
            for path, image, camera in zip(paths, images, cameras):
                path.parent.mkdir(parents=True, exist_ok=True)
                save_radiograph(path, image, camera)
            draws = generator.get_state()
            for name, error in errors.items():  # the control is the same error, larger
                generator.set_state(draws)
                stated = [mistaken(camera, error, generator).to_dict() for camera in cameras]
                changed = case | {"image": [str(path) for path in paths], "cameras": stated}
                sections[name].setdefault(section, []).append(changed)
            for _ in cameras:
                torch.randn(8, generator=generator, dtype=torch.float64)
    for name, path in datalists.items():
        save_datalist(path, sections[name], header)


def _run(bundle: str, common: Sequence[str], options: Mapping[str, object]) -> None:
    configs = BUNDLES / bundle / "configs"
    files = [configs / "train.json", configs / "small.json", *(BUNDLES / "common" / f"{name}.json" for name in common)]
    monai.bundle.run(config_file=[str(file) for file in files], **options)


if __name__ == "__main__":
    fire.Fire(measured_cameras)
