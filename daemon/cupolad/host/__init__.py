"""What the daemon asks of the kernel, one module for each kind of resource."""
