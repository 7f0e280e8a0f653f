"""The door of the platform."""
