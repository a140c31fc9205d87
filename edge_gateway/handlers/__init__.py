"""How requests are served: routes by the stages of the pipeline, and the built-in routes."""
