"""One self-contained HTML page per evaluation: tables, and every case to scroll through."""

from trct_monai.evaluation.report.command import report

__all__ = ["report"]
