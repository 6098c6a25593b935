"""The report of a store: one page that opens from disk, shows every figure and says how to run it all again."""

from kintsugi.report.page import write_report

__all__ = ["write_report"]
