"""The pictures of docs/pictures, each rendered from the real thing: ``python -m pictures`` in the folder tools."""
