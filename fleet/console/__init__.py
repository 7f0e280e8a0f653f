"""The read-only web console, served by the operator process."""
