"""The report of a run: collected while it trains, written as ``report.json`` and as one self-contained page."""

from planish.report.collect import ReportBuilder
from planish.report.page import render
from planish.report.schema import KernelUse, ModuleBytes, Report, Series, Summary, Variant, read_report

__all__ = [
    "KernelUse",
    "ModuleBytes",
    "Report",
    "ReportBuilder",
    "Series",
    "Summary",
    "Variant",
    "read_report",
    "render",
]
