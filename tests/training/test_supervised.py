"""Our supervised trainer."""

import pytest
import torch
from monai.data import DataLoader
from torch import nn

from trct_monai.training import SupervisedTrainer


class Recorder(nn.Module):
    """A layer that notes in which type it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.types: list[torch.dtype] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(x)
        self.types.append(result.dtype)
        return result


@pytest.mark.parametrize("amp, dtype", [(True, torch.bfloat16), (False, torch.float32)])
def test_lower_precision_is_that_of_the_network_on_the_cpu_too(amp: bool, dtype: torch.dtype) -> None:
    network = Recorder()
    before = network.layer.weight.detach().clone()
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=DataLoader([{"image": torch.ones(4), "label": torch.zeros(4)}] * 2, batch_size=1),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=nn.MSELoss(),
        amp=amp,
        amp_kwargs={"dtype": torch.bfloat16},
    ).run()
    assert network.types == [dtype, dtype]
    assert network.layer.weight.dtype == torch.float32 and not torch.equal(network.layer.weight, before)
