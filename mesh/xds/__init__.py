"""A control plane for Envoys: the policy as xDS resources, a snapshot for each node, over one ADS stream each."""
