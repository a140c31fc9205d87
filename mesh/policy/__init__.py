"""The policy of the mesh: one typed table of workloads and methods, compiled from the contract and the deployment.

Everything that enforces it is a target of the same table: the ingress, the xDS snapshots and the Istio configuration.
"""
