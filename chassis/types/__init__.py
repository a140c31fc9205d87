"""Values that every service exchanges: money, times, pages and field masks."""
