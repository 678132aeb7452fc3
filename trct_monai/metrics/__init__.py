"""Metrics on volumes in HU: MONAI metrics for a training's log, named protocols for an evaluation."""

from trct_monai.metrics.hu import HUMetric, hu_metrics
from trct_monai.metrics.protocols import PROTOCOLS, Protocol, hu_protocol

__all__ = ["PROTOCOLS", "HUMetric", "Protocol", "hu_metrics", "hu_protocol"]
