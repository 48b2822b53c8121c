"""The depot: bytes of what was pushed, under their SHA-256; one interface, two homes."""
