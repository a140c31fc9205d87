"""How the edge answers: routes by the stages of the pipeline, and the paths that it serves itself."""
