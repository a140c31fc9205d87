"""Building blocks of pure domain code: no I/O, no clock, no proto. A service's `domain*.py` may import these alone."""
