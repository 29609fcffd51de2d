"""scikit-learn classifiers and pipelines, by skl2onnx; steps of xgboost and lightgbm by onnxmltools' converters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from model_export.data import Table
from model_export.errors import MissingLibraryError, SourceError, UnsupportedModelError
from model_export.graphs.graph import Array
from model_export.sources import boosting, parity
from model_export.sources.model import Reference, Source
from model_export.sources.taken import Taken, taken_by

#: What onnxruntime 1.20 and later runs, and skl2onnx 1.18 and later writes; and of ai.onnx.ml.
OPSET, ML_OPSET = 17, 3
LOCALE = "C"


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


def from_estimator(estimator: Any, table: Table, *, name: str, file: str, opset: int | None = None) -> Source:
    """Convert a fitted classifier; its probabilities become a plain tensor (``zipmap`` off).

    Raises:
        UnsupportedModelError: it is not fitted, no classifier, or skl2onnx cannot convert it.
        MissingLibraryError: scikit-learn, skl2onnx or a step's converter is not installed.
    """
    try:
        import skl2onnx
        import sklearn
        from sklearn.base import is_classifier
    except ImportError as error:
        raise _missing(error) from error
    title = type(estimator).__name__
    if not is_classifier(estimator):
        raise UnsupportedModelError(f"{title} is no classifier", "edgeloop watches classes; give a fitted classifier")
    classes, taken = getattr(estimator, "classes_", None), taken_by(estimator, table)
    if classes is None or taken is None:
        raise UnsupportedModelError(f"{title} is not fitted", "call fit() before you save it")
    if isinstance(classes, list):
        raise UnsupportedModelError(f"{title} predicts several labels at once", "export one classifier a label")
    boosters = boosting.register(estimator)
    notes: tuple[str, ...] = ()
    scalings = _scalings(estimator)
    for scaling in scalings:
        try:
            model = _converted(estimator, taken, scaling, opset)
        except Exception as error:
            raise UnsupportedModelError(
                f"skl2onnx cannot convert {title}: {type(error).__name__}: {error}",
                "leave out the step that it cannot convert, or export to ONNX yourself and give the .onnx file",
            ) from error
        reference = _reference(estimator, taken, [output.name for output in model.graph.output])
        if scaling == scalings[-1]:
            break
        found = parity.compare(model, reference, parity.rows_of(model, table), "skl2onnx")
        if not found.refused(parity.SHARE["sklearn"]):
            break
        notes = ("the scaling of its inputs is converted as a division, which rounds as scikit-learn's does",)
    tools = {"scikit-learn": sklearn.__version__, "skl2onnx": skl2onnx.__version__, **boosters}
    return Source(
        "sklearn",
        name,
        file,
        model,
        classes=tuple(classes.tolist()),
        tools=tools,
        notes=notes,
        how="skl2onnx",
        reference=reference,
    )


def _scalings(estimator: Any) -> list[dict[Any, Any]]:
    """Options of skl2onnx by which a StandardScaler can be converted, its default first.

    A multiplication by 1/scale is a last bit away from a division by it. Boosted trees have their thresholds at values
    that occur in the data, so that bit decides.
    """
    from sklearn.preprocessing import StandardScaler

    if not any(isinstance(part, StandardScaler) for part in estimator.get_params(deep=True).values()):
        return [{}]
    return [{}, {StandardScaler: {"div": "div"}}, {StandardScaler: {"div": "div_cast"}}]


def _converted(estimator: Any, taken: Taken, scaling: Mapping[Any, Any], opset: int | None) -> ModelProto:
    import skl2onnx

    title = type(estimator).__name__
    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "predict_proba") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: ModelProto = skl2onnx.convert_sklearn(
            estimator,
            name=title,
            initial_types=taken.types(),
            options={**options, **scaling} or None,
            target_opset={"": min(opset or OPSET, OPSET), "ai.onnx.ml": ML_OPSET},
        )
    # Softer than the operators' need: skl2onnx names the graph after a random id where it is given none.
    model.graph.name = title
    for node in model.graph.node:
        if node.op_type == "StringNormalizer" and not any(a.name == "locale" for a in node.attribute):
            # The default is American English, which few devices have; the one that all have knows ASCII's letters.
            node.attribute.append(helper.make_attribute("locale", LOCALE))
    return model


def _reference(estimator: Any, taken: Taken, outputs: list[str]) -> Reference:
    """The class that the estimator predicts, and its scores, under the names that skl2onnx gave them."""
    scores = getattr(estimator, "predict_proba", None) or estimator.decision_function

    def run(rows: Mapping[str, Array]) -> dict[str, Array]:
        x = taken.rows(rows)
        with warnings.catch_warnings():
            # Names of columns that the estimator was fitted with, and the data do not have.
            warnings.simplefilter("ignore")
            return dict(zip(outputs, (np.asarray(estimator.predict(x)), np.asarray(scores(x))), strict=False))

    return run


def _missing(error: ImportError) -> MissingLibraryError:
    return MissingLibraryError(f"scikit-learn sources need {error.name}", "install it: pip install 'edgeloop[export]'")
