"""What MONAI's engines lack for these methods: an adversarial trainer, handlers, inferers, calibration."""

from trct_monai.training.adversarial import AdversarialTrainer, DiscriminatorEvents, middle_slice
from trct_monai.training.averaging import WeightAverage
from trct_monai.training.calibration import calibrate
from trct_monai.training.checkpoints import BestModel, FrozenWeights, ResumableCheckpoint
from trct_monai.training.devices import (
    data_loader,
    default_device,
    device_of_loading,
    half_precision,
    on_gpu,
    spare_cores,
)
from trct_monai.training.distributed import (
    device_ids,
    join_group,
    leave_group,
    process_number,
    shared_backend,
    shared_device,
    wrap_if_many,
)
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
from trct_monai.training.intervals import intervals_beside, load_intervals, save_intervals
from trct_monai.training.named_handlers import (
    NamedHandlers,
    adversarial_handlers,
    evaluation_handlers,
    fitting_handlers,
    inference_handlers,
    training_handlers,
    validation_handlers,
)
from trct_monai.training.readings import RecentLoss
from trct_monai.training.runs import run_evaluation, run_fitting, run_training, start_from_data
from trct_monai.training.schedules import CosineOverTime, linear_decay, refuse_flags, validate_last
from trct_monai.training.supervised import SupervisedTrainer
from trct_monai.training.validation import HUEvaluator

__all__ = [
    "AdversarialTrainer",
    "BestModel",
    "ClipGradients",
    "CosineOverTime",
    "DiscriminatorEvents",
    "EpochSeed",
    "FrozenWeights",
    "GANGuard",
    "HUEvaluator",
    "InterpolatingInferer",
    "LossTerms",
    "NamedHandlers",
    "RecentLoss",
    "RefinementInferer",
    "ResolutionSchedule",
    "ResumableCheckpoint",
    "SliceContextInferer",
    "SliceImages",
    "StopOnNonFinite",
    "SupervisedTrainer",
    "TwoStageInferer",
    "WeightAverage",
    "adversarial_handlers",
    "calibrate",
    "data_loader",
    "default_device",
    "device_ids",
    "device_of_loading",
    "evaluation_handlers",
    "fitting_handlers",
    "half_precision",
    "inference_handlers",
    "intervals_beside",
    "join_group",
    "leave_group",
    "linear_decay",
    "load_intervals",
    "middle_slice",
    "on_gpu",
    "process_number",
    "refuse_flags",
    "run_evaluation",
    "run_fitting",
    "run_training",
    "save_intervals",
    "shared_backend",
    "shared_device",
    "spare_cores",
    "start_from_data",
    "training_handlers",
    "validate_last",
    "validation_handlers",
    "wrap_if_many",
]
