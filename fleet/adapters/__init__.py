"""The ports on the real world: the only code that imports nats and an HTTP client. Chosen by the composition roots."""
