"""The report: one self-contained page that shows an atlas."""

from lfm_tasks.report.page import render_report

__all__ = ["render_report"]
