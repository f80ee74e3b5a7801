"""Support for the tests that break things: an encoder without weights, faults at every write, a reader, checks."""
