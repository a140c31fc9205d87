"""Tools that use or judge a running shop from outside: sample data, a demo, load, and checks of its invariants."""
