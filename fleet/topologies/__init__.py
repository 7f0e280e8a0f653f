"""The real topologies: sets of capabilities under one name, such as a cluster or a Linux host."""
