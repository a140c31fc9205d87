"""From descriptors to routes: path templates, the router, and the binding of URL text to fields."""
