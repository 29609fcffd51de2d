"""Boosted trees of xgboost and lightgbm: their own boosters, their own files, and their classifiers in a pipeline."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from model_export.errors import MissingLibraryError, SourceError, UnsupportedModelError
from model_export.graphs.graph import Array
from model_export.sources.model import Source

#: How xgboost and lightgbm save a booster themselves. None of them is a pickle.
XGBOOST_FILES, LIGHTGBM_FILES = (".ubj", ".json", ".xgb"), (".txt", ".lgb")
INPUT = "input"
#: onnxmltools writes trees for no newer opset than this (1.16).
NEWEST_OPSET = 15
_OPTIONS = {"nocl": [True, False], "zipmap": [True, False, "columns"], "raw_scores": [True, False]}


def is_booster(found: object) -> bool:
    """Whether this is a native booster; imports neither library."""
    return any(name in sys.modules and isinstance(found, sys.modules[name].Booster) for name in ("xgboost", "lightgbm"))


def register(estimator: Any) -> dict[str, str]:
    """Tell skl2onnx how to convert the classifiers of xgboost and lightgbm that an estimator is made of.

    Returns:
        Versions of their libraries, where it is made of any.

    Raises:
        MissingLibraryError: onnxmltools is not installed.
    """
    found = {type(part) for part in _parts(estimator) if type(part).__module__.split(".")[0] in ("xgboost", "lightgbm")}
    if not found:
        return {}
    mltools = _mltools()
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes as shapes

    versions = {"onnxmltools": mltools.__version__}
    for kind in sorted(found, key=lambda kind: kind.__name__):
        library = kind.__module__.split(".")[0]
        versions[library] = sys.modules[library].__version__
        if library == "xgboost":
            from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost as convert
        else:
            from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm as convert
        update_registered_converter(kind, kind.__name__, shapes, convert, options=_OPTIONS)
    return versions


def _parts(estimator: Any) -> list[Any]:
    """An estimator and, at any depth, those it is made of."""
    inner = estimator.get_params(deep=True).values() if hasattr(estimator, "get_params") else ()
    fitted = [*getattr(estimator, "estimators_", ()), *getattr(estimator, "calibrated_classifiers_", ())]
    return [estimator, *(value for value in inner if hasattr(value, "get_params")), *fitted]


def load(path: Path) -> Any:
    """A booster from its library's own file.

    Raises:
        SourceError: it cannot be read.
        MissingLibraryError: the library is not installed.
    """
    library = "xgboost" if path.suffix.lower() in XGBOOST_FILES else "lightgbm"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if library == "xgboost":
                import xgboost

                return xgboost.Booster(model_file=str(path))
            import lightgbm

            return lightgbm.Booster(model_file=str(path))
    except ImportError as error:
        raise _missing(library) from error
    except Exception as error:  # each library has an error of its own for it
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SourceError(
            f"{path.name} is no model of {library}: {first[:300]}", "save it by its save_model()"
        ) from error


def from_booster(booster: Any, *, name: str, file: str, opset: int | None = None) -> Source:
    """Convert a native booster; its scores become probabilities of each class, whatever the number of classes.

    Raises:
        UnsupportedModelError: it is no classifier, or onnxmltools cannot convert it.
        MissingLibraryError: onnxmltools is not installed.
    """
    mltools = _mltools()
    from onnxmltools.convert.common.data_types import FloatTensorType

    library = type(booster).__module__.split(".")[0]
    columns = int(booster.num_features() if library == "xgboost" else booster.num_feature())
    arguments = {
        "initial_types": [(INPUT, FloatTensorType([None, columns]))],
        "target_opset": min(opset or NEWEST_OPSET, NEWEST_OPSET),
    }
    predict = _predictor(booster, library)
    if predict(np.zeros((2, columns), np.float32)).min() < 0:
        raise _no_classifier(library)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if library == "xgboost":
                # The converter reads the columns as f0, f1, …; other names are those of a data frame.
                booster = booster.copy()
                booster.feature_names = None
                model: ModelProto = mltools.convert_xgboost(booster, **arguments)
            else:
                model = mltools.convert_lightgbm(booster, zipmap=False, **arguments)
    except Exception as error:
        raise UnsupportedModelError(
            f"onnxmltools cannot convert this model of {library}: {type(error).__name__}: {error}",
            "save the classifier (XGBClassifier, LGBMClassifier) by joblib, or export to ONNX yourself",
        ) from error
    model.graph.name = library
    outputs = [output.name for output in model.graph.output]
    if len(outputs) != 2:
        raise _no_classifier(library)

    def run(rows: Mapping[str, Array]) -> dict[str, Array]:
        scores = predict(rows[INPUT])
        return {outputs[0]: scores.argmax(axis=1), outputs[1]: scores}

    tools = {library: sys.modules[library].__version__, "onnxmltools": mltools.__version__}
    return Source(library, name, file, model, tools=tools, how="onnxmltools", reference=run)


def _predictor(booster: Any, library: str) -> Any:
    """Rows float32 [N, columns] → probabilities [N, K]."""

    def predict(x: Array) -> Array:
        if library == "xgboost":
            import xgboost

            scores = booster.predict(xgboost.DMatrix(x), validate_features=False)
        else:
            scores = booster.predict(x)
        scores = np.asarray(scores)
        return scores if scores.ndim == 2 else np.stack([1 - scores, scores], axis=1)

    return predict


def _no_classifier(library: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"this model of {library} gives no probabilities",
        "edgeloop watches classes; train it with the objective binary:logistic or multi:softprob (xgboost), binary or "
        "multiclass (lightgbm)",
    )


def _mltools() -> Any:
    try:
        import onnxmltools
    except ImportError as error:
        raise _missing("onnxmltools") from error
    return onnxmltools


def _missing(library: str) -> MissingLibraryError:
    return MissingLibraryError(f"boosted trees need {library}", "install it: pip install 'edgeloop[boosting]'")
