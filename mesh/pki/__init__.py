"""The certificates of the mesh: a local authority, a short-lived certificate for each workload, and their rotation."""
