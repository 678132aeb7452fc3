"""What MONAI's engines lack for these methods: an adversarial trainer, handlers, inferers, calibration."""

from trct_monai.training.adversarial import AdversarialTrainer, DiscriminatorEvents
from trct_monai.training.calibration import calibrate
from trct_monai.training.checkpoints import BestModel, ResumableCheckpoint
from trct_monai.training.distributed import wrap_if_many
from trct_monai.training.gan_guard import GANGuard
from trct_monai.training.handlers import (
    ClipGradients,
    EpochSeed,
    LossTerms,
    ResolutionSchedule,
    SliceImages,
    StopOnNonFinite,
)
from trct_monai.training.inferers import InterpolatingInferer, RefinementInferer, SliceContextInferer, TwoStageInferer
from trct_monai.training.intervals import load_intervals, save_intervals
from trct_monai.training.readings import RecentLoss
from trct_monai.training.schedules import CosineOverTime, refuse_flags, validate_last
from trct_monai.training.supervised import SupervisedTrainer

__all__ = [
    "AdversarialTrainer",
    "BestModel",
    "ClipGradients",
    "CosineOverTime",
    "DiscriminatorEvents",
    "EpochSeed",
    "GANGuard",
    "InterpolatingInferer",
    "LossTerms",
    "RecentLoss",
    "RefinementInferer",
    "ResolutionSchedule",
    "ResumableCheckpoint",
    "SliceContextInferer",
    "SliceImages",
    "StopOnNonFinite",
    "SupervisedTrainer",
    "TwoStageInferer",
    "calibrate",
    "load_intervals",
    "refuse_flags",
    "save_intervals",
    "validate_last",
    "wrap_if_many",
]
