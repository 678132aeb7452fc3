"""How good a folder of predicted CTs is: scores and probes of every case, leaderboard and report."""

from trct_monai.evaluation.cohort import evaluate_predictions
from trct_monai.evaluation.leaderboard import compare
from trct_monai.evaluation.options import EvaluationOptions
from trct_monai.evaluation.predictions import load_pair, load_quantiles, load_truth, prediction_file
from trct_monai.evaluation.scores import CaseRadiographs, score_case
from trct_monai.evaluation.summary import summarize

__all__ = [
    "CaseRadiographs",
    "EvaluationOptions",
    "compare",
    "evaluate_predictions",
    "load_pair",
    "load_quantiles",
    "load_truth",
    "prediction_file",
    "score_case",
    "summarize",
]
