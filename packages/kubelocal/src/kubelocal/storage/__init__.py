"""The store of objects, its watch history, selectors and list pages, and the file that keeps it."""
