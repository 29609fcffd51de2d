"""The report on a package: what it is worth, measured on this machine, as one page or as JSON."""

from __future__ import annotations

from model_export.report.figures import Report, report
from model_export.report.page import render

__all__ = ["Report", "render", "report"]
