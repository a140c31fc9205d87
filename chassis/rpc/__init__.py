"""The path of a call: the server's pipeline, access, tokens, and clients of other services."""
