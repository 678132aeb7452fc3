"""No code names a device where it should take that of its tensors."""

import ast
from collections.abc import Iterator
from pathlib import Path

import trct_monai

LIBRARY = Path(trct_monai.__file__).parent


def calls(function: str) -> Iterator[tuple[str, ast.Call]]:
    """The library's calls of a function such as torch.autocast, each with its place."""
    for path in sorted(LIBRARY.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(function):
                yield f"{path.relative_to(LIBRARY)}:{node.lineno}", node


def test_autocast_names_the_device_of_its_input() -> None:
    found = list(calls("torch.autocast"))
    assert found
    named = [place for place, call in found if not ast.unparse(call.args[0]).endswith("device.type")]
    assert not named, f"autocast of a fixed device in {', '.join(named)}"


def test_only_the_choice_of_a_device_asks_for_cuda() -> None:
    asking = {place.split(":")[0] for place, call in calls("torch.cuda.")}
    assert asking <= {"reconstruction/inputs.py", "training/devices.py", "training/distributed.py"}


def test_a_gradient_scaler_takes_the_device_of_its_trainer() -> None:
    assert all(ast.unparse(call.args[0]) == "self.state.device.type" for _, call in calls("torch.amp.GradScaler"))
