"""Writing a prepared folder, and checking one."""
