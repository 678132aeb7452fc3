"""Every method on patients that it has not seen: each patient of some folders is left out once.

    python benchmarks/leave_one_patient_out.py --cts FOLDER[,FOLDER...] --phantoms DATALIST --output OUT

For each patient all methods are fitted to the CTs of the others, each as it is and warped as
`bundles/common/from_cts.json` warps them, and to some phantoms; then they reconstruct the CT that was left out from
radiographs that `prepare` rendered of it, with both views and, where a method can, with the frontal one alone. The
baselines see the same kind of warps as the networks; a network's weights are those of its last step. CTs of `--also`
are reconstructed by methods that were fitted to all patients.

any_view goes on from weights that have seen phantoms alone (`--start_path`): those that come along know some patients,
and are refused.

It writes `scores.csv` after every fold, and goes on with the next one when it is started again; the table at the end is
the mean over patients. **A handful of patients is a development aid and no result.** For one, give LIDC-IDRI's folder
and `--left_out` with the patients of a test list: one fold for all of them.
"""

import csv
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import fire
import monai.bundle
import nibabel
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from torch import Tensor, nn
from tqdm import tqdm

from trct_monai.arguments import parse_names
from trct_monai.baselines import RidgePCA, fit_baseline
from trct_monai.datasets import ct_cases, hold_out, prepare
from trct_monai.geometry import DEFAULT_EXTENT, preset
from trct_monai.intensity import unit_to_hu
from trct_monai.io import SECTIONS, load_datalist, load_state, read_datalist, save_datalist, save_state
from trct_monai.io.files import write_csv
from trct_monai.metrics.protocols import PROTOCOLS
from trct_monai.networks.linear_start import LinearStart
from trct_monai.resampling import resize_cube
from trct_monai.transforms import (
    CutCubed,
    LoadPatientd,
    LoadRadiographsd,
    OtherShapesd,
    RandScanLimitsd,
    RandSurroundingsd,
    RandTissued,
    RandWarpd,
    RenderViews,
)

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
BASELINES = ("mean_volume", "nearest_neighbour", "ridge_pca")
OVERLAYS = {"any_view": ["small", "common/from_cts", "from_patients"]}
"""Overlays of train.json; small and from_cts for other bundles."""

ANY_NUMBER = ("mean_volume", "nearest_neighbour", "ridge_pca", "linear_start", "any_view")
"""Methods that reconstruct from the frontal view alone."""

SPACING = 2.5
"""Voxel side in mm in which CTs are warped."""

Scores = dict[str, Any]


class Start(nn.Module):
    """A linear start alone: radiographs (B, V, H, W) of known exposure to a volume (B, 1, X, X, X)."""

    def __init__(self, cases: Sequence[Mapping[str, Tensor]], size: int) -> None:
        super().__init__()
        self.size, self.start = size, LinearStart(96, extent=DEFAULT_EXTENT, noise=0.4)
        self.start.fit(case["label"] for case in cases)
        self.projections = self.start.project(preset("x2ct"))

    def forward(self, image: Tensor) -> Tensor:
        """The most probable volume; the views are the first ones of x2ct."""
        views = torch.arange(len(preset("x2ct"))) < image.shape[1]
        known = torch.ones(image.shape[:2], dtype=torch.bool)
        added = self.start(image, [self.projections.of(views)] * len(image), known, known).added
        return resize_cube(self.start.mean + added, self.size).clamp(0, 1)


def leave_one_patient_out(
    output: str,
    cts: str | Sequence[str],
    phantoms: str | None = None,
    methods: str | Sequence[str] = "mean_volume,nearest_neighbour,ridge_pca,linear_start,any_view",
    also: str | Sequence[str] = "",
    left_out: str | Sequence[str] = "",
    only: str | Sequence[str] = "",
    warps: int = 40,
    num_phantoms: int = 100,
    epochs: int = 3,
    size: int = 64,
    radiograph_size: int = 128,
    seed: int = 0,
    threads: int = 2,
    **options: Any,
) -> None:
    """Run all folds, and print the table.

    Args:
        output: Folder to write.
        cts: Folders of CTs, separated by commas.
        phantoms: Datalist of phantoms; networks make PhantomThorax-64 without it, and baselines go without phantoms.
        methods: Baselines, linear_start, or bundles that have an overlay small.json.
        also: Folders of CTs that no method is fitted to.
        left_out: Patients or cases that are left out together in the only fold, in place of each patient once.
        only: Patients whose folds are run, or all for that of `--also`; every fold if not given. Processes that share
            the work each need an output of their own.
        warps: Of each CT; of the networks in each epoch.
        num_phantoms: Phantoms among the training cases.
        epochs: Epochs of each network.
        size: Voxels along each side.
        radiograph_size: Pixels along each side.
        seed: Of warps and trainings.
        threads: Threads of this process.
        options: Further options of the networks' configurations, such as --step_share 0.15.
    """
    torch.set_num_threads(threads)
    folder = Path(output).absolute()
    found, others = ct_cases(parse_names(cts)), parse_names(also)
    strangers = ct_cases(others) if others else []
    both = {case[key] for case in found for key in ("case_id", "patient_id")}
    if twice := [one for case in strangers for one in (case["case_id"], case["patient_id"]) if one in both]:
        raise ValueError(f"{', '.join(sorted(set(twice)))}: in the folders of --cts and in those of --also")
    cases_of = _prepared([*parse_names(cts), *others], folder, size, radiograph_size)
    known = {case["case_id"]: case for case in cases_of}
    if missing := [case["case_id"] for case in [*found, *strangers] if case["case_id"] not in known]:
        raise ValueError(f"{', '.join(missing)}: refused by prepare; take them out of the folders")
    patients = sorted({case["patient_id"] for case in found})
    together = parse_names(left_out)
    folds = [(name, hold_out(found, [name])) for name in patients]
    if together:
        folds = [("together", hold_out(found, together))]
    if others:
        folds.append(("all", (found, strangers)))
    mine = parse_names(only) or [name for name, _ in folds]
    if strange := sorted(set(mine) - {name for name, _ in folds}):
        raise ValueError(f"{', '.join(strange)}: no such fold; there are {', '.join(name for name, _ in folds)}")
    path = folder / "scores.csv"
    rows: list[Scores] = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.is_file() else []
    names = parse_names(methods)
    if "any_view" in names:
        _check_start(options.get("start_path", BUNDLES / "any_view" / "models" / "small" / "model.pt"))
    for fold, (training, test) in (one for one in folds if one[0] in mine):
        wanted = [name for name in names if not any(row["fold"] == fold and row["method"] == name for row in rows)]
        cases: list[dict[str, Any]] = []
        if set(wanted) & {*BASELINES, "linear_start"}:
            cases = list(_training_cases(training, phantoms, num_phantoms, warps, size, radiograph_size, seed))
        for name in wanted:
            start = time.monotonic()
            if name in (*BASELINES, "linear_start"):
                scores = _score_baseline(name, cases, [known[case["case_id"]] for case in test], size)
            else:
                run = folder / name / fold
                held = ",".join(case["case_id"] for case in test) if fold != "all" else ""
                numbers = {
                    "cts": parse_names(cts), "held_out": held, "warps": warps, "phantoms": num_phantoms,
                    "epochs": epochs,
                    "val_interval": epochs, "seed": seed, "volume_size": size, "radiograph_size": radiograph_size,
                    "output_dir": str(run), "ckpt_path": str(run / "best.pt"),
                    "tensorboard_dir": str(run / "tensorboard"),
                    **({"phantom_datalist": str(Path(phantoms).absolute())} if phantoms else {}), **options,
                }  # fmt: skip
                scores = _score_bundle(name, numbers, [known[case["case_id"]] for case in test], run)
            seconds = round(time.monotonic() - start)
            rows += [{"fold": fold, "method": name, **score, "seconds": seconds} for score in scores]
            write_csv(path, rows)
    print(table(rows, names, [fold for fold, _ in folds]))


def _check_start(path: str | Path) -> None:
    """Refuse weights that have seen patients, who might be those left out."""
    means = load_state(path).get("linear_start.mean", torch.zeros(1)) if path else torch.zeros(1)
    if means[1:].any():
        raise ValueError(
            f"{path} has a model of patients, perhaps of those that are left out: pass --start_path with weights of "
            "phantoms alone, such as those of 0.1.0, or an empty one to start without"
        )


def _prepared(folders: Sequence[str], folder: Path, size: int, radiograph_size: int) -> Iterator[dict[str, Any]]:
    """The cases of all folders, with the datalist's other fields."""
    for number, cts in enumerate(folders):
        target = folder / "cases" / str(number)
        prepare(cts, str(target), size=size, radiograph_size=radiograph_size, num_workers=0, fractions="0/0/1")
        header = {key: value for key, value in read_datalist(target / "datalist.json").items() if key not in SECTIONS}
        for case in load_datalist(target / "datalist.json", "test"):
            yield {**case, "header": header}


def _training_cases(
    training: Sequence[Mapping[str, Any]],
    phantoms: str | None,
    num_phantoms: int,
    warps: int,
    size: int,
    radiograph_size: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Labels and radiographs of the CTs and of their warps, and of phantoms, which have no patient."""
    transforms = (RandWarpd, RandTissued, RandSurroundingsd, RandScanLimitsd)
    random = Compose([transform(spacing=SPACING) for transform in transforms]).set_random_state(seed)
    cut, render = CutCubed(size=size, spacing=SPACING), RenderViews(radiograph_size=radiograph_size, spacing=SPACING)

    def rendered(case: Mapping[str, Any], patient: str | None) -> dict[str, Any]:
        batch = {key: value[None] for key, value in cut(case).items() if isinstance(value, Tensor)}
        image, label = render(batch, "cpu", False)[:2]
        assert label is not None
        return {"image": image[0], "label": label[0], "of": patient}

    load, shapes = LoadPatientd(spacing=SPACING), OtherShapesd(others=training, spacing=SPACING)
    for case in tqdm(training, desc="CTs", unit="CT"):
        box, others = {"patient": load(case)["patient"].float()}, {"shapes": shapes(case)["shapes"]}
        for number in range(1 + warps):
            yield rendered(random(box | others) if number else box, case["patient_id"])
    for case in load_datalist(phantoms, "training")[:num_phantoms] if phantoms else []:
        yield rendered(load({"patient": case["label"]}), None)


def _score_baseline(
    name: str, cases: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]], size: int
) -> list[Scores]:
    """Scores of a baseline with both views and with the first one."""
    rows = []
    for views in (2, 1):
        some = [{**case, "image": case["image"][:views]} for case in cases]
        model = Start(some, size) if name == "linear_start" else _fitted(name, some, size)
        for case in test:
            image = LoadRadiographsd(size=cases[0]["image"].shape[-1])(case)["image"][:views]
            with torch.no_grad():
                result = unit_to_hu(model(image[None])[0, 0])
            rows.append({"case": case["case_id"], "views": views, **_scores(result, case)})
    return rows


def _fitted(name: str, cases: Sequence[Mapping[str, Any]], size: int) -> nn.Module:
    """A baseline, its settings chosen on the last patient's CT and its warps before it is fitted to all."""
    if name != "ridge_pca":
        return fit_baseline(name, cases, volume_size=size)
    last = [case["of"] for case in cases if case["of"]][-1]
    chosen = RidgePCA(size).select(
        [case for case in cases if case["of"] != last], [case for case in cases if case["of"] == last]
    )
    best = max(chosen, key=lambda one: one.psnr)
    return RidgePCA(size, num_components=best.num_components, ridge=best.ridge).fit(cases).eval()


def _score_bundle(name: str, numbers: Mapping[str, Any], test: Sequence[Mapping[str, Any]], run: Path) -> list[Scores]:
    """Scores of a bundle that is trained without these cases, or goes on being trained."""
    overlays = OVERLAYS.get(name, ["small", "common/from_cts"])
    resume = (run / "resume" / "checkpoint.pt").is_file()
    _run(name, ["train", *overlays], {**numbers, "resume": resume})
    weights, datalist = run / "model.pt", run / "test.json"
    save_state(weights, load_state(run / "resume" / "checkpoint.pt")["network"])
    cases = [{key: value for key, value in case.items() if key != "header"} for case in test]
    save_datalist(datalist, {"test": cases}, test[0]["header"])
    rows = []
    for views in (2, 1) if name in ANY_NUMBER else (2,):
        target = run / f"views_{views}"
        files = {"datalist": str(datalist), "ckpt_path": str(weights), "output_dir": str(target)}
        _run(name, ["inference", "small"], {**numbers, **files, "views": list(range(views))})
        for case in test:
            result = torch.from_numpy(nibabel.load(target / f"{case['case_id']}.nii.gz").get_fdata())
            rows.append({"case": case["case_id"], "views": views, **_scores(result, case)})
    return rows


def _scores(result: Tensor, case: Mapping[str, Any]) -> Scores:
    """PSNR in dB, SSIM and MAE in HU of a volume (X, Y, Z) in HU, by the protocol `hu`."""
    truth = nibabel.load(case["label"]).get_fdata()
    scores = PROTOCOLS["hu"](result.double().numpy(), truth)
    return {"psnr": round(scores["psnr_3d"], 3), "ssim": round(scores["ssim"], 4), "mae_hu": round(scores["mae"], 1)}


def _run(bundle: str, files: Sequence[str], options: Mapping[str, Any]) -> None:
    """`monai.bundle run` with those options that the configuration has: inference has not all of training."""
    own = BUNDLES / bundle / "configs"
    paths = [str(BUNDLES / f"{file}.json" if "/" in file else own / f"{file}.json") for file in files]
    keys = ConfigParser.load_config_files(paths)
    known = {name: value for name, value in options.items() if name.split("::")[0] in keys}
    if unknown := [name for name in options if name not in known and "train" in files]:
        raise ValueError(f"{', '.join(unknown)}: no such options of {bundle}'s training")
    monai.bundle.run(config_file=paths, **known)


def table(rows: Sequence[Scores], methods: Sequence[str], folds: Sequence[str]) -> str:
    """Means over patients, as Markdown; the cases of the fold ``all`` have a line of their own."""
    lines = ["| method | views | patients | PSNR | SSIM | MAE |", "|---|---|---|---|---|---|"]
    for group in ([fold for fold in folds if fold != "all"], [fold for fold in folds if fold == "all"]):
        for views in ("2", "1"):
            for method in methods:
                own = [r for r in rows if r["method"] == method and r["fold"] in group and str(r["views"]) == views]
                if own:
                    psnr, ssim, mae = (mean(float(row[key]) for row in own) for key in ("psnr", "ssim", "mae_hu"))
                    who = f"{len(own)} left out" if "all" not in group else f"{len(own)} others"
                    lines.append(f"| {method} | {views} | {who} | {psnr:.2f} dB | {ssim:.3f} | {mae:.0f} HU |")
    return "\n".join(lines)


if __name__ == "__main__":
    fire.Fire(leave_one_patient_out)
