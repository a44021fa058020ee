"""What runs in helper processes, away from the daemon, and how the daemon starts them."""
