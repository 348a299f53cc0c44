"""Task files: reads them, analyses their queries, links them into a graph, and plans DAGs from it.

No module here imports Airflow. The entry point is ``compile_folder``.
"""

from __future__ import annotations

from crosswind.tasks.compiling import CompiledFolder, compile_folder, compile_task

__all__ = ["CompiledFolder", "compile_folder", "compile_task"]
