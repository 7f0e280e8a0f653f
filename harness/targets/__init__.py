"""The targets: topologies a scenario can run on. One file each, behind `harness.targets.port`."""
