"""Stage audit: check an atlas against limits and a baseline, and write the result.

The checks are a plug-in family: `lfm_tasks.checks` says how to add one.
"""

from lfm_tasks.audit.stage import Audit, audit_atlas

__all__ = ["Audit", "audit_atlas"]
