"""The ports of a real Linux device: its disk, systemd, podman, programs and the host lock."""
