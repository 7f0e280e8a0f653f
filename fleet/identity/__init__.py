"""Who devices and administrators are to the identity provider."""
