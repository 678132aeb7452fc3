"""The model of chests by which `reconstruct` measures the cameras of radiographs: mean and principal components.

    python benchmarks/chest_model.py --cts FOLDER[,FOLDER...] --output bundles/any_view/models/small/chest.pt

It is fitted to CTs, each as it is and warped, and to phantoms. A warp is affine (5 % shear, 8 % scale, 10 % of half the
cube as shift) and smooth (displacements of 5 % on 4^3 and 2 % on 8^3 nodes); nothing is mirrored, for hearts are on the
left. Components are stored as whole numbers up to 31, each with a scale of its own: they are off by 1.6 % of their
maximum at most, and compress to 2 MB.
"""

from pathlib import Path

import fire
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from trct_monai.datasets.sources import find_sources
from trct_monai.geometry import DEFAULT_EXTENT
from trct_monai.intensity import HU_WINDOW, hu_to_unit
from trct_monai.io.ct import read_ct
from trct_monai.io.weights import save_state, ship_weights
from trct_monai.networks.linear_start import LinearStart
from trct_monai.phantoms import thorax_phantom
from trct_monai.preprocessing import CTPreprocessing

SIZE = 64
"""Voxels along each side in which CTs are warped."""

LEVELS = 31
"""Largest number that a component is stored with."""


def warped(cube: Tensor, generator: torch.Generator) -> Tensor:
    """A cube (1, X, X, X) in [0, 1] of another shape."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    linear = torch.eye(3) + 0.05 * normal(3, 3) * (1 - torch.eye(3)) + torch.diag(0.08 * normal(3))
    matrix = torch.cat([linear, 0.1 * normal(3, 1)], dim=1)[None]
    grid = F.affine_grid(matrix, [1, 1, *cube.shape[1:]], align_corners=False)
    for size, nodes in ((0.05, 4), (0.02, 8)):
        field = F.interpolate(
            size * normal(1, 3, nodes, nodes, nodes), size=cube.shape[1:], mode="trilinear", align_corners=True
        )
        grid = grid + field.movedim(1, -1)
    return F.grid_sample(cube[None], grid, align_corners=False)[0]


def main(
    cts: str, output: str, warps: int = 60, phantoms: int = 150, modes: int = 96, size: int = 32, seed: int = 0
) -> None:
    """Fit and write the model.

    Args:
        cts: Folders of CTs, separated by commas; none of patients on whom anything is to be scored.
        output: The file to write; its digest goes into SHA256SUMS beside it.
        warps: Of each CT.
        phantoms: How many.
        modes: Principal components.
        size: Voxels along each side of the model.
        seed: Of the warps.
    """
    sources = [source for folder in cts.split(",") for source in find_sources(Path(folder), 16).sources]
    if not sources:
        raise ValueError(f"{cts}: no CT found")
    generator, protocol = torch.Generator().manual_seed(seed), CTPreprocessing(SIZE, DEFAULT_EXTENT)
    volumes = []
    for source in tqdm(sources, desc="CTs", unit="CT"):
        ct = read_ct(source.path, source.files)
        cube = hu_to_unit(protocol.cubes(ct.ct_hu, [SIZE], ct.affine)[0].as_tensor().float())
        volumes += [cube, *(warped(cube, generator) for _ in range(warps))]
    for index in tqdm(range(phantoms), desc="phantoms", unit="phantom"):
        phantom = thorax_phantom(50_000 + index, size, phase=None)
        volumes.append(hu_to_unit(torch.from_numpy(phantom.ct_hu).float())[None])
    model = LinearStart(modes, size=size, extent=DEFAULT_EXTENT)
    model.fit(volumes)
    scale = model.modes.flatten(1).abs().amax(dim=1).clamp(min=1e-9) / LEVELS
    stored = (model.modes / scale.view(-1, 1, 1, 1, 1)).round().to(torch.int8)
    cube = {"extent": torch.tensor(DEFAULT_EXTENT), "hu_window": torch.tensor(HU_WINDOW)}
    save_state(output, {"mean": model.mean, "modes": stored, "scale": scale, **cube})
    ship_weights(output, output)
    print(f"{len(sources)} CTs, {len(volumes)} volumes, {modes} components: wrote {output}")


if __name__ == "__main__":
    fire.Fire(main)
