"""Calls to the back ends over HTTP/2: connections, metadata, deadlines and the status of failed calls."""
