"""One pod's life and many pods' lives: launching, following, stopping, and the engine that does it for many at once."""
