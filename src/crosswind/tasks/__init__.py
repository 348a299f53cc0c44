"""Task files: what they say, what their queries read and make, the graph between them, and the DAGs they become.

Nothing here imports Airflow. ``compile_folder`` is the way through all of it.
"""

from __future__ import annotations

from crosswind.tasks.compiling import Compiled, compile_folder, compile_task

__all__ = ["Compiled", "compile_folder", "compile_task"]
