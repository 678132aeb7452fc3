"""An evaluation as one self-contained HTML file: tables, and every case to scroll through."""

from trct_monai.evaluation.report.command import report

__all__ = ["report"]
