"""Generated calls and requests to the gateway and the web, with wrong, huge and malformed input."""
