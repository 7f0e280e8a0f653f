"""Making releases: the agent and all it needs in one file that starts with nothing but a Python interpreter."""
