"""The virtual world: implements the ports of `fleet.capabilities` on simulated time.

It does not know who uses them; `harness.targets.sim` puts the production programs into it.
"""
