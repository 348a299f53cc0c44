"""``crosswind.task_logs.ArchiveTaskHandler``: the name under which a deployment's own log handler derives from ours."""

from crosswind.provider.log_handler import ArchiveTaskHandler

__all__ = ["ArchiveTaskHandler"]
