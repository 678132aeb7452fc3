"""The methods of a leaderboard: baselines to fit, bundles to run, folders of predictions to read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trct_monai.arguments import parse_names
from trct_monai.baselines.fitting import BASELINES
from trct_monai.bundles.find import bundle_files
from trct_monai.bundles.overlays import check_overlays
from trct_monai.evaluation.cohort import evaluate_predictions
from trct_monai.evaluation.driver import Row
from trct_monai.evaluation.mean_volume import check_name
from trct_monai.evaluation.methods import FittedBaseline, run_bundle
from trct_monai.evaluation.options import EvaluationOptions
from trct_monai.evaluation.predictions import prediction_files


@dataclass(frozen=True)
class Target:
    """Cases that all methods reconstruct and are scored on.

    Attributes:
        options: The cases, and how they are scored.
        folder: Where predictions and evaluations go.
        given: Folders of predictions that are read, by the method's name.
    """

    options: EvaluationOptions
    folder: Path
    given: Mapping[str, Path] = field(default_factory=dict)

    def predictions(self, name: str) -> Path:
        """Folder of a method's predictions."""
        return self.given.get(name, self.folder / "predictions" / name)

    def check_given(self) -> None:
        """Refuse folders in which a prediction is missing.

        Raises:
            FileNotFoundError: If one is.
        """
        for path in self.given.values():
            prediction_files(path, self.options.cases())

    def evaluate(
        self, names: Sequence[str], mean_volume: Path | None, num_workers: int
    ) -> dict[str, tuple[dict[str, Any], list[Row]]]:
        """Summary and rows of each method; see `evaluate_predictions`."""
        return {
            name: evaluate_predictions(
                self.predictions(name), self.options, self.folder / "evaluations" / name, name, mean_volume, num_workers
            )
            for name in names
        }


@dataclass(frozen=True)
class Entries:
    """The methods that are compared.

    Attributes:
        to_fit: Names of baselines.
        to_run: Configurations and weights of bundles by name.
        to_read: Folders of predictions by name.
    """

    to_fit: Sequence[str]
    to_run: Mapping[str, tuple[Sequence[Path], Path]]
    to_read: Mapping[str, Path]

    @classmethod
    def parse(cls, methods: str | None, bundles: str | None, baselines: str) -> "Entries":
        """From the flags of `leaderboard`.

        Raises:
            ValueError: If something is not there, or two have one name.
        """
        to_read = named_folders(methods, "methods")
        to_run = dict(bundle_files(spec) for spec in parse_names(bundles))
        for config, _ in to_run.values():
            check_overlays(config)
        to_fit = list(BASELINES) if baselines == "all" else [] if baselines == "none" else parse_names(baselines)
        unknown = [name for name in to_fit if name not in BASELINES]
        if unknown:
            raise ValueError(f"baselines must be all, none or out of {', '.join(BASELINES)}, got {', '.join(unknown)}")
        entries = cls(to_fit, to_run, to_read)
        if not entries.names or len(set(entries.names)) < len(entries.names):
            got = ", ".join(entries.names) or "none"
            raise ValueError(f"a leaderboard needs methods with different names, got {got}")
        for name in entries.names:
            check_name(name)
        return entries

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [*self.to_fit, *self.to_run, *self.to_read]

    def predict(self, targets: Sequence[Target]) -> None:
        """Write the predictions of baselines and bundles, unless they are there.

        Args:
            targets: What is reconstructed; baselines learn from the datalist of the first.
        """
        for name in self.to_fit:
            baseline = FittedBaseline(name, targets[0].options)
            for target in targets:
                baseline.run(target.options, target.predictions(name))
        for name, (config, weights) in self.to_run.items():
            for target in targets:
                run_bundle(name, config, weights, target.options, target.predictions(name))


def named_folders(text: str | None, flag: str) -> dict[str, Path]:
    """Folders as name=FOLDER, separated by commas.

    Raises:
        ValueError: If the text, given by this flag, is something else.
    """
    folders: dict[str, Path] = {}
    for part in parse_names(text):
        name, equals, path = part.partition("=")
        if not (name and equals and path) or name in folders:
            raise ValueError(f"{flag} must be name=FOLDER with different names, separated by commas, got {text!r}")
        folders[name] = Path(path)
    return folders
