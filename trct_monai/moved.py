"""Module names of 0.1.0: served from their new places, with a warning, until 0.3.0.

`import trct_monai` installs a finder for the modules of `MOVED` and `CHANGED`. A module that is gone is made again,
empty; one that stayed is loaded as always. Both get a `__getattr__` that looks up what left them. Nothing else in the
library knows old names: with 0.3.0 this file goes, and the line of `trct_monai/__init__.py` that calls `install`.
"""

import sys
import warnings
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import Any

PACKAGE = "trct_monai"

MOVED = {
    "bundle": "bundles io.weights",
    "calibration": "training training.calibration",
    "cli": "commands",
    "data": "io",
    "data.batch": "arguments datasets.driver datasets.workers",
    "data.cases": "datasets.cases io.nifti io.provenance io.files",
    "data.check": "datasets.check",
    "data.datalist": "io io.datalist io.case datasets.checksum",
    "data.defaults": "datasets datasets.defaults",
    "data.dicom": "io.dicom.series",
    "data.orientation": "registration.orientation",
    "data.phantom_cases": "datasets.phantom_sets intensity",
    "data.phantom_phases": "datasets.phantom_phases",
    "data.phantoms": "phantoms",
    "data.phantoms.findings": "phantoms.findings",
    "data.phantoms.heart": "phantoms.heart",
    "data.phantoms.patient": "phantoms.patient",
    "data.phantoms.shapes": "phantoms.shapes",
    "data.phantoms.skeleton": "phantoms.skeleton",
    "data.phantoms.trees": "phantoms.trees",
    "data.phantoms.trunk": "phantoms.trunk",
    "data.phases": "datasets datasets.phases datasets.prepare_phases",
    "data.plant": "datasets.plant datasets.spheres intensity",
    "data.predictions": "evaluation datasets evaluation.predictions",
    "data.prepare": "datasets.prepare datasets.prepare_case intensity",
    "data.readers": "io.ct io.x2ct",
    "data.sources": "datasets.sources datasets.patients io.ct",
    "data.split": "datasets.split",
    "data.volumes": "datasets transforms",
    "engines": "training training.adversarial",
    "evaluate": "evaluation.evaluate evaluation.cohort evaluation.summary",
    "evaluate_phases": "evaluation.phases",
    "export": "bundles.export",
    "gan_guard": "training training.gan_guard",
    "geometry": "geometry.camera",
    "handlers": "training training.checkpoints",
    "inferers": "training training.inferers",
    "leaderboard": "evaluation.leaderboard evaluation.methods evaluation.table",
    "metrics.anatomy": "intensity metrics.anatomy",
    "metrics.motion": "intensity metrics.motion",
    "metrics.protocols": "metrics metrics.protocols",
    "metrics.reprojection": "metrics.reprojection projector",
    "networks.any_view": "networks networks.agreement",
    "networks.intervals": "networks training.intervals",
    "networks.reconstruction": "networks.reconstruction resampling",
    "projector": "projector.operators projector.kernels geometry",
    "projector.views": "projector.kernels",
    "reconstruct": "reconstruction reconstruction.command reconstruction.inputs reconstruction.reconstructor intensity",
    "report": "evaluation.report",
    "report.codec": "evaluation.report.codec",
    "report.command": "evaluation.report.command",
    "scoring": "evaluation.scores",
    "transforms": "geometry io preprocessing resampling io.radiograph",
    "transforms.body": "preprocessing preprocessing.body",
    "transforms.dicom": "io.dicom.header io.dicom.radiograph io.dicom.writer",
    "transforms.protocol": "preprocessing transforms preprocessing.cube intensity",
    "transforms.radiographs": "io geometry transforms resampling io.radiograph",
    "transforms.resampling": "resampling",
    "transforms.views": "transforms transforms.cameras",
}
"""A module of 0.1.0, and where its names are now: packages that one may rely on first, then modules."""

CHANGED = {
    "baselines.cases.Case": "use trct_monai.baselines.cases.TrainingCase",
    "baselines.cases.Cases": "use trct_monai.baselines.cases.TrainingCases",
    "data.cases.case_folder": "use trct_monai.io.files.replacing_folder(folder)",
    "data.datalist.write_atomically": "use trct_monai.io.files.write_text(path, text)",
    "data.datalist.write_csv": "use trct_monai.io.files.write_csv(path, rows), the path first",
    "data.orientation.fit_intensity": "use trct_monai.intensity.fit_gain_offset(image, expected)",
    "data.orientation.opposite_camera": "use trct_monai.geometry.Camera.opposite",
    "data.orientation.project_cube": "use trct_monai.projector.project_hu(volume_hu, cameras, voxel_spacing)",
    "data.orientation.shift_camera": "use trct_monai.geometry.Camera.shifted",
    "data.plant.AIR_HU": "use trct_monai.intensity.BODY_HU, which has its value of -950",
    "data.predictions.load_ct": "use trct_monai.io.nifti.read_volume(path), whose axes are in RAS order",
    "data.readers.read_ct": "use trct_monai.io.ct.read_ct(path, files)",
    "networks.linear_start.solve": "use trct_monai.networks.normal_equation.solve, which gives the determinant too",
    "evaluate.digest": "use trct_monai.io.provenance.digest_values(values)",
    "figures.SOFT_TISSUE": "write (-160.0, 240.0)",
    "intensity.is_finite": "use torch.isfinite(image).all()",
    "metrics.protocols.convert_psnr": "write decibels + 20 * log10(other_peak / peak)",
    "metrics.protocols.rmse_hu": "write width * 10 ** (-psnr / 20)",
    "metrics.reprojection.reproject": "use trct_monai.projector.project_hu(volume_hu, cameras, voxel_spacing)",
    "networks.any_view.CAUTION": "use trct_monai.networks.agreement.CORRECTION_SCALE",
    "networks.any_view.EAGERNESS": "use trct_monai.networks.agreement.GATE_GAIN",
    "networks.any_view.SHORTEST": "use trct_monai.networks.agreement.MIN_PATH_FRACTION",
    "networks.reconstruction.resize": "use trct_monai.resampling.resize_cube(volume, size)",
    "reconstruct.Method": "use trct_monai.reconstruction.Reconstructor",
    "reconstruct.Result": "use trct_monai.reconstruction.Result, whose fields are others",
    "reconstruct.View": "use trct_monai.io.Radiograph, which holds its camera",
    "reconstruct.load_method": "use trct_monai.reconstruction.load_reconstructor(method, device, size)",
    "reconstruct.on_detector": "use trct_monai.geometry.Camera.for_picture",
    "reconstruct.read_views": "use trct_monai.reconstruction.read_radiographs(pa, lat, radiographs, geometry)",
    "reconstruct.solve": "use trct_monai.reconstruction.Reconstructor, an instance of which is called with radiographs",
    "scoring.INSIDE_HU": "use trct_monai.intensity.BODY_HU, which has its value of -950",
    "transforms.body.BODY_HU": "use trct_monai.intensity.LUNG_HU, which has its value of -500",
    "transforms.dicom.header_numbers": "use pydicom.dcmread(path), whose elements are numbers",
    "transforms.save.save_nifti": "use trct_monai.io.nifti.write_hu(path, hu, affine), the path first",
    "transforms.save_nifti": "use trct_monai.io.nifti.write_hu(path, hu, affine), the path first",
}
"""A name of 0.1.0 that is gone, or that takes other arguments or has another value where it is now; and what to do."""

METHODS = {"networks.intervals": ("IntervalNetwork", "save", "training.intervals", "save_intervals")}
"""A method of 0.1.0 that is a function now: module, class and method, and where the function of the object is."""

_OLD = {f"{PACKAGE}.{name}" for name in (*MOVED, *(key.rpartition(".")[0] for key in CHANGED))}
_warned: set[str] = set()


def install() -> None:
    """Serve the old names from now on."""
    sys.meta_path.insert(0, _OldModules())


class _OldModules(MetaPathFinder, Loader):
    """Finds the modules of 0.1.0 that lost names, or are gone."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        old, _, name = fullname.rpartition(".")
        if not _OLD & {fullname, old}:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.origin is not None:  # None is a folder left with nothing but __pycache__
                return _with_old_names(spec) if fullname in _OLD else spec
        if fullname in _OLD:
            return ModuleSpec(fullname, self, is_package=True)
        try:  # `from OLD import NAME` asks for a module where there is no such attribute
            getattr(import_module(old), name)
        except AttributeError as error:
            raise ModuleNotFoundError(str(error)) from None
        except ImportError:
            pass  # the line of `CHANGED` comes when Python asks for the attribute
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = __file__  # MONAI takes a package without a file for an empty folder
        if not any(name.startswith(f"{module.__name__}.") for name in _OLD):
            _warn(module.__name__)  # a package of old modules warns when a name is taken from it: one warning for each
        _serve_old_names(module)


def _with_old_names(spec: ModuleSpec) -> ModuleSpec:
    """A module that stayed: after it is loaded it knows where the names are that left it."""
    loader = spec.loader
    if isinstance(loader, SourceFileLoader):
        load = loader.exec_module

        def load_and_serve(module: ModuleType) -> None:
            load(module)
            _serve_old_names(module)

        loader.exec_module = load_and_serve  # type: ignore[method-assign]  # of this one loader, for this one module
    return spec


def _serve_old_names(module: ModuleType) -> None:
    module.__dict__["__getattr__"] = partial(look_up, module.__name__)
    if (old := module.__name__.removeprefix(f"{PACKAGE}.")) in METHODS:
        owner, method, home, function = METHODS[old]

        def call(*arguments: Any) -> Any:
            _warn(module.__name__)
            return getattr(import_module(f"{PACKAGE}.{home}"), function)(*arguments)

        setattr(vars(module)[owner], method, call)


def look_up(old: str, name: str) -> Any:
    """What 0.1.0 had under this name, where it is now.

    Args:
        old: The module of 0.1.0.
        name: A name in it.

    Raises:
        ImportError: If the name is gone or takes other arguments; the line says what to use. No AttributeError: Python
            and MONAI replace its text by theirs.
        AttributeError: If there is no such name.
    """
    key = f"{old}.{name}".removeprefix(f"{PACKAGE}.")
    if key in CHANGED:
        raise ImportError(f"{PACKAGE}.{key} went in 0.2.0: {CHANGED[key]}")
    if key in MOVED:  # a module that its package imported
        return import_module(f"{PACKAGE}.{key}")
    modules = _new_modules(old)
    if not name.startswith("_"):
        for module in map(import_module, modules):
            value = vars(module).get(name, module)
            if not isinstance(value, ModuleType):  # such as evaluation.leaderboard, where the function is asked for
                _warn(old)
                return value
    moved = f"; its names moved to {', '.join(modules)} in 0.2.0" if modules else ""
    raise AttributeError(f"module {old!r} has no attribute {name!r}{moved}")


def _new_modules(old: str) -> list[str]:
    return [f"{PACKAGE}.{new}" for new in MOVED.get(old.removeprefix(f"{PACKAGE}."), "").split()]


def _warn(old: str) -> None:
    """Once for each module."""
    if old not in _warned:
        places = ", ".join(_new_modules(old))
        text = f"names of {old} moved to {places} in 0.2.0; the old place is served until 0.3.0"
        warnings.warn(text, DeprecationWarning, stacklevel=3)
        _warned.add(old)
