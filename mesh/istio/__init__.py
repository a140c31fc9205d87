"""The policy as Istio configuration: istio/ is rendered from it, and read back to be compared with it."""
