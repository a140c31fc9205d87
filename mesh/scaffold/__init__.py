"""`shopmesh new NAME`: writes a service with one resource, its protos and its tests, from the templates beside this."""
