"""scikit-learn classifiers and pipelines, by skl2onnx."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from model_export.errors import MissingLibraryError, SourceError, UnsupportedModelError
from model_export.sources.model import Source

#: What onnxruntime 1.20 and later runs, and skl2onnx 1.18 and later writes.
TARGET_OPSET = {"": 17, "ai.onnx.ml": 3}
INPUT = "input"


def is_estimator(found: object) -> bool:
    """Whether this is a scikit-learn estimator (an instance, not its class)."""
    return not isinstance(found, type) and hasattr(found, "get_params") and hasattr(found, "fit")


def load(path: Path) -> object:
    """Unpickle a joblib file. The caller has asked the person whether its code may run.

    Raises:
        SourceError: it cannot be unpickled.
        MissingLibraryError: joblib is not installed.
    """
    try:
        import joblib
    except ImportError as error:
        raise _missing(error) from error
    try:
        # joblib.load is what --trust-source consents to.
        return joblib.load(path)
    except Exception as error:
        raise SourceError(
            f"{path.name} cannot be unpickled: {type(error).__name__}: {error}",
            "install the versions of scikit-learn and of your own modules that it was written with",
        ) from error


def from_estimator(estimator: Any, *, name: str, file: str) -> Source:
    """Convert a fitted classifier; its probabilities become a plain tensor (``zipmap`` off).

    Raises:
        UnsupportedModelError: it is not fitted, no classifier, or skl2onnx cannot convert it.
        MissingLibraryError: scikit-learn or skl2onnx is not installed.
    """
    try:
        import skl2onnx
        import sklearn
        from skl2onnx.common.data_types import FloatTensorType
        from sklearn.base import is_classifier
    except ImportError as error:
        raise _missing(error) from error
    title = type(estimator).__name__
    if not is_classifier(estimator):
        raise UnsupportedModelError(f"{title} is no classifier", "edgeloop watches classes; give a fitted classifier")
    classes, columns = getattr(estimator, "classes_", None), getattr(estimator, "n_features_in_", None)
    if classes is None or columns is None:
        raise UnsupportedModelError(f"{title} is not fitted", "call fit() before you save it")
    if isinstance(classes, list):
        raise UnsupportedModelError(f"{title} predicts several labels at once", "export one classifier a label")
    options = {"zipmap": False} if hasattr(estimator, "predict_proba") else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = skl2onnx.convert_sklearn(
                estimator,
                name=title,
                initial_types=[(INPUT, FloatTensorType([None, int(columns)]))],
                options=options,
                target_opset=TARGET_OPSET,
            )
    except Exception as error:
        raise UnsupportedModelError(
            f"skl2onnx cannot convert {title}: {type(error).__name__}: {error}",
            "only numeric input columns are supported; export to ONNX yourself and give the .onnx file",
        ) from error
    # Softer than the operators' need: skl2onnx names the graph after a random id where it is given none.
    model.graph.name = title
    tools = {"scikit-learn": sklearn.__version__, "skl2onnx": skl2onnx.__version__}
    return Source("sklearn", name, file, model, classes=tuple(classes.tolist()), tools=tools)


def _missing(error: ImportError) -> MissingLibraryError:
    return MissingLibraryError(f"scikit-learn sources need {error.name}", "install it: pip install 'edgeloop[export]'")
