"""Several reads in one request."""

PATH = "/v1:batchGet"
MOST = 20
