"""Releases that misbehave on purpose, to see that a fleet survives them.

A misbehaving release is the production agent with one thing wrong. What is wrong is written once and has the same
meaning in the virtual world and in a real zipapp. Nothing of this is in a healthy release, nor loaded by the agent.
"""
