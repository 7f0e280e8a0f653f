"""The auth callout: decides for the NATS server which device a client is, by its token and the enrolments."""
