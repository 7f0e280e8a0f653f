"""Secrets that are made once and read ever after. The port is `fleet.capabilities.secrets`."""
