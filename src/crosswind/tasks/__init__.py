"""Task files: model, tables and SQL, graph. Pure."""
