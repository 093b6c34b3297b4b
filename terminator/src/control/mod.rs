//! Control: loads, fetches, verifies, caches, refreshes, reloads and publishes. All I/O and time of the slow path.
