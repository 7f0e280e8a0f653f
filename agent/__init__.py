"""The device agent. Ships as one zipapp per version; imports only `fleet.contracts` and `fleet.capabilities`."""
