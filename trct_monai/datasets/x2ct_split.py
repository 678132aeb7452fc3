"""The split of LIDC-IDRI that X2CT-GAN published, as series of the Imaging Data Commons.

The published names state a patient, a date that all share, and a SeriesNumber. That number decides; a published name
without one means the patient's CT that has none in the index either.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trct_monai.io.files import read_text, write_csv
from trct_monai.io.idc import RemoteSeries

COLLECTION = "lidc_idri"

SIDES = {"training": "x2ct_train.csv", "test": "x2ct_test.csv"}
"""The lists' files, which `split` reads."""

BY_NUMBER, NO_NUMBER = "SeriesNumber", "the CT without a SeriesNumber"
"""How a published name was settled."""


@dataclass(frozen=True)
class X2CTSplit:
    """The published split in an index.

    Attributes:
        sides: The series of each side, sorted by patient.
        settled: How each was settled, by UID.
        missing: One line for each published name that is not in the index.
        others: CTs of the index that the published lists do not have.
    """

    sides: dict[str, list[RemoteSeries]] = field(default_factory=lambda: {side: [] for side in SIDES})
    settled: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    others: list[RemoteSeries] = field(default_factory=list)

    def describe(self) -> list[str]:
        """What is on each side, how it was settled, and who is on both."""
        patients = {side: {one.patient_id for one in chosen} for side, chosen in self.sides.items()}
        lines = [f"x2ct {side}: {len(self.sides[side])} series of {len(patients[side])} patients" for side in SIDES]
        found = [one for chosen in self.sides.values() for one in chosen]
        number = sum(how == BY_NUMBER for how in self.settled.values())
        several = [one.patient_id for one in found]
        twice = sorted({name for name in several if several.count(name) > 1})
        lines.append(
            f"settled: {number} by the SeriesNumber of the published name, {len(found) - number} that have none, "
            f"neither there nor in the index; with two CTs, each by its number: {', '.join(twice) or 'nobody'}"
        )
        for name in sorted(patients["training"] & patients["test"]):
            where = " and ".join(
                f"{side} (SeriesNumber {one.number})"
                for side in SIDES
                for one in self.sides[side]
                if one.patient_id == name
            )
            lines.append(f"on both sides: {name}, in {where}; split needs --leaks_to training or --leaks_to test")
        if self.others:
            lines.append(f"in the index, but not published: {len(self.others)} CTs, which are left out")
        return lines + [f"missing: {line}" for line in self.missing]

    def write(self, folder: Path) -> None:
        """Write both lists, whole, as `split` takes them."""
        for side, name in SIDES.items():
            rows = [
                {
                    "patient_id": one.patient_id,
                    "series_uid": one.uid,
                    "series_number": one.number,
                    "settled_by": self.settled[one.uid],
                }
                for one in self.sides[side]
            ]
            write_csv(folder / name, rows, ["patient_id", "series_uid", "series_number", "settled_by"])


def published() -> list[tuple[str, str, str]]:
    """Patient, SeriesNumber (0 if the CT has none) and side of each published name."""
    names = []
    for line in read_text(Path(__file__).with_name("x2ct_split.txt")).splitlines():
        if not line.startswith("#"):
            first, *entries = line.split()
            for patient, entry in enumerate(entries, int(first)):
                for number in entry.split(",") if entry != "-" else ():
                    side = "test" if number.endswith("t") else "training"
                    names.append((f"LIDC-IDRI-{patient:04d}", number.removesuffix("t"), side))
    return names


def find_x2ct_split(cts: Iterable[RemoteSeries], names: Sequence[tuple[str, str, str]] | None = None) -> X2CTSplit:
    """The published series among the CTs of LIDC-IDRI.

    Args:
        cts: All CTs of the collection.
        names: As `published` gives them; those if None.
    """
    of_patient: dict[str, list[RemoteSeries]] = defaultdict(list)
    for one in cts:
        of_patient[one.patient_id].append(one)
    split = X2CTSplit()
    for patient, number, side in published() if names is None else names:
        has_none = number == "0"
        fitting = [one for one in of_patient[patient] if one.number == ("" if has_none else number)]
        if len(fitting) != 1:
            known = ", ".join(one.number or "none" for one in of_patient[patient])
            split.missing.append(
                f"{patient}, {side}: published with SeriesNumber {'none' if has_none else number}; the index has "
                + (f"CTs of the patient with {known}" if known else "no CT of the patient")
            )
            continue
        split.sides[side].append(fitting[0])
        split.settled[fitting[0].uid] = NO_NUMBER if has_none else BY_NUMBER
    split.others.extend(one for several in of_patient.values() for one in several if one.uid not in split.settled)
    return split
