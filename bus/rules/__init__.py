"""The pure decisions of the bus: standard library only, no I/O, property-tested."""
