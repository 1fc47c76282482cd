"""The metrics that an expression can call: `accuracy`, `roc_auc` and the others of `catalogue/measures.txt`.

In: predictions or scores, and targets. Out: one number, or a confusion matrix, as scikit-learn computes it.
A value that is not defined, such as `roc_auc` of one class, is NaN.
"""

from runner.language.measures.classification import accuracy, confusion_matrix, f1, precision, recall, top_k_accuracy
from runner.language.measures.ranking import average_precision, roc_auc
from runner.language.measures.regression import r2

__all__ = [
    "accuracy",
    "average_precision",
    "confusion_matrix",
    "f1",
    "precision",
    "r2",
    "recall",
    "roc_auc",
    "top_k_accuracy",
]
