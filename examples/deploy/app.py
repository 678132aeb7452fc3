"""Two radiographs in a folder to a CT as DICOM series and NIfTI, as an application of the MONAI Deploy App SDK."""

import logging
from pathlib import Path
from typing import Any

from monai.deploy.conditions import CountCondition
from monai.deploy.core import (
    AppContext,
    Application,
    ExecutionContext,
    InputContext,
    Operator,
    OperatorSpec,
    OutputContext,
)
from radiographs import find_radiographs

from trct_monai.io.dicom import check_series_folder, common_study, write_ct_series
from trct_monai.io.files import write_json
from trct_monai.reconstruction import load_reconstructor, read_radiographs
from trct_monai.reconstruction.inputs import choose_device
from trct_monai.reconstruction.result import NOTICE
from trct_monai.transforms import SaveCTd

log = logging.getLogger(__name__)


class RadiographLoader(Operator):
    """Find the radiographs of one examination.

    Named output:
        radiographs: Their files by view, ``pa`` and ``lat``.
    """

    def __init__(self, fragment: Application, *args: Any, folder: Path, **kwargs: Any) -> None:
        self.folder = folder
        super().__init__(fragment, *args, **kwargs)  # last: it calls setup

    def setup(self, spec: OperatorSpec) -> None:
        spec.output("radiographs")

    def compute(self, op_input: InputContext, op_output: OutputContext, context: ExecutionContext) -> None:
        radiographs = find_radiographs(self.folder)
        log.info("radiographs: %s", ", ".join(f"{view} {path.name}" for view, path in radiographs.items()))
        op_output.emit(radiographs, "radiographs")


class Reconstruction(Operator):
    """Make the CT, with its intervals and what speaks against believing it.

    Named input:
        radiographs: Files by view.

    Named output:
        ct: ``result``, the reconstruction; ``study``, patient and study of DICOM radiographs; ``record``, what to tell
            the reader.
    """

    def __init__(
        self, fragment: Application, *args: Any, method: str, geometry: str, size: int, device: str, **kwargs: Any
    ) -> None:
        self.method, self.geometry, self.size, self.device = method, geometry, size, device
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("radiographs")
        spec.output("ct")

    def start(self) -> None:
        """Load the weights once, before the first examination."""
        self.reconstructor = load_reconstructor(self.method, choose_device(self.device), self.size)

    def compute(self, op_input: InputContext, op_output: OutputContext, context: ExecutionContext) -> None:
        files = op_input.receive("radiographs")
        named = {view: str(path) for view, path in files.items()}
        radiographs = read_radiographs(named.get("pa"), named.get("lat"), None, self.geometry)
        if any(one.camera is None for one in radiographs):
            result = self.reconstructor.from_pictures(dict(zip(named, radiographs)), "ct")
        else:
            result = self.reconstructor(radiographs, "ct")
        for line in result.warnings:
            log.warning("%s", line)
        record = self.reconstructor.record(radiographs, result)
        op_output.emit({"result": result, "study": common_study(files.values()), "record": record}, "ct")


class CTWriter(Operator):
    """Write ``ct.nii.gz``, ``ct_quantiles.nii.gz``, ``dicom/`` with one file for each axial slice, and ``ct.json``.

    Named input:
        ct: What `Reconstruction` emits.
    """

    def __init__(self, fragment: Application, *args: Any, folder: Path, **kwargs: Any) -> None:
        self.folder = folder
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("ct")

    def start(self) -> None:
        """Refuse to mix two series before time is spent."""
        check_series_folder(self.folder / "dicom")

    def compute(self, op_input: InputContext, op_output: OutputContext, context: ExecutionContext) -> None:
        ct = op_input.receive("ct")
        SaveCTd("pred", self.folder)({"pred": ct["result"].pred})
        volume = ct["result"].volume_hu.numpy()
        slices = write_ct_series(volume, ct["result"].affine, self.folder / "dicom", ct["study"])
        write_json(self.folder / "ct.json", ct["record"])
        log.info("wrote ct.nii.gz, ct.json and dicom/ (%d slices) to %s. %s", len(slices), self.folder, NOTICE)


class RadiographsToCT(Application):
    """Loader, reconstruction, writer. ``--model`` is a bundle's folder; without it the package's own weights serve."""

    def compose(self) -> None:
        paths: AppContext = Application.init_app_context(self.argv)
        settings = self.kwargs("reconstruction")
        bundle = Path(paths.model_path)
        if (bundle / "configs").is_dir():
            name, *overlays = settings["method"].split("+")
            settings["method"] = "+".join([str(bundle), *overlays])
        loader = RadiographLoader(self, CountCondition(self, 1), folder=Path(paths.input_path), name="loader")
        reconstruction = Reconstruction(self, **settings, name="reconstruction")
        writer = CTWriter(self, folder=Path(paths.output_path), name="writer")
        self.add_flow(loader, reconstruction, {("radiographs", "radiographs")})
        self.add_flow(reconstruction, writer, {("ct", "ct")})


if __name__ == "__main__":
    application = RadiographsToCT()
    application.config(str(Path(__file__).with_name("app.yaml")))
    application.run()
