"""Many pods for one scheduler: launch, follow, judge, report and clean up, on one event loop in a thread of its own."""
