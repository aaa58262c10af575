"""The export: copies of ledger records in object storage, each exactly once. See docs/ledger.md."""

from services.apimgmt.ledger.export.job import Export, exported
from services.apimgmt.ledger.export.metrics import ExportMetrics
from services.apimgmt.ledger.export.target import ExportError, problems

__all__ = ["Export", "ExportError", "ExportMetrics", "exported", "problems"]
