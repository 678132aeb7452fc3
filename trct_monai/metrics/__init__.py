"""How predictions are measured: metrics for the log of a training, named protocols and probes for an evaluation."""

from trct_monai.metrics.conditioning import Conditioning, measure_conditioning
from trct_monai.metrics.hu import HUMetric, hu_metrics, hu_scores
from trct_monai.metrics.motion import MotionMetric, motion_scores
from trct_monai.metrics.protocols import PROTOCOLS, Protocol, hu_protocol
from trct_monai.metrics.statistics import Estimate, bootstrap_mean, compare_pairs, paired_test, skill_score

__all__ = [
    "PROTOCOLS",
    "Conditioning",
    "Estimate",
    "HUMetric",
    "MotionMetric",
    "Protocol",
    "bootstrap_mean",
    "compare_pairs",
    "hu_metrics",
    "hu_protocol",
    "hu_scores",
    "measure_conditioning",
    "motion_scores",
    "paired_test",
    "skill_score",
]
