"""A package, so that pytest ends its stack after its last test: the scope `package` is known to packages alone."""
