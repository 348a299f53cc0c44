"""How SQL is understood: text, templates, statements, names in their scopes, and what each statement does to a table.

``crosswind.tasks.queries`` is the way in. The steps, one module each: ``text`` and ``templates`` turn a file into
plain SQL; ``splitting`` finds the statements, those inside of scripts too; ``statements`` reads each with sqlglot or by
``phrases``; ``scopes`` and ``writers`` say what it reads and makes; ``session`` resolves the names in the order in
which the statements run. All of it is pure.
"""
