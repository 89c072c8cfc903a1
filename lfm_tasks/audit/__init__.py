"""Stage audit: hold an atlas against limits and a baseline; say what was found, and keep it."""

from lfm_tasks.audit.stage import Audit, audit_atlas

__all__ = ["Audit", "audit_atlas"]
