"""The report page of a filter run: figures, funnel, histograms, and pictures of clips that were kept and dropped."""

from planish.filtering.report.page import write_report

__all__ = ["write_report"]
