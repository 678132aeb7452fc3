"""The logistic adversarial loss against its formula."""

import torch
import torch.nn.functional as F

from trct_monai.losses import LogitAdversarialLoss


def test_the_loss_is_the_binary_cross_entropy_of_a_sigmoid() -> None:
    scores = torch.randn(2, 1, 5, 5)
    loss = LogitAdversarialLoss()
    for real in (True, False):
        expected = F.binary_cross_entropy(scores.sigmoid(), torch.full_like(scores, float(real)))
        torch.testing.assert_close(loss(scores, real, True), expected)


def test_large_scores_and_half_precision_stay_finite() -> None:
    scores = torch.tensor([[[[-3e4, 3e4]]]], dtype=torch.float16, requires_grad=True)
    loss = LogitAdversarialLoss()(scores, True, False)
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite() and scores.grad is not None and scores.grad.isfinite().all()
