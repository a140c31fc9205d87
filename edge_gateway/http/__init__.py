"""HTTP itself: requests and answers on ASGI, headers, compression, static files, and the server's HTTP/1.1."""
