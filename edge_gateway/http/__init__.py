"""HTTP: requests and responses on ASGI, headers, compression, static files, and the server's HTTP/1.1."""
