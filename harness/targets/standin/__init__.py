"""Stand-ins for a device's service manager and container engine, made of plain processes.

They answer the very command lines that `agent.linux` uses, so that the production adapters run unchanged on one
machine without systemd and Podman. One supervisor process is one device; when it ends, nothing of the device is left.
"""
