"""The local stack: what runs, in which order, and how it is started, watched, restarted and stopped."""
