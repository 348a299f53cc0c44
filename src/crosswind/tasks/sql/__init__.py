"""SQL analysis: text, templates, statements, names in their scopes, and the effects of each statement on tables.

The entry point is ``crosswind.tasks.query_analysis``. The steps, one module each: ``text`` and ``jinja_templates`` turn
a file into plain SQL; ``splitting`` finds the statements, also inside scripts; ``statements`` parses each with sqlglot
or by ``phrases``; ``scopes`` and ``writers`` find the tables that it reads and writes; ``sql_session`` resolves the
names in the order in which the statements run.
"""
