"""The life of one pod for the operator and its trigger: start, follow, XCom, cleanup."""
