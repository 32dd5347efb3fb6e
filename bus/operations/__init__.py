"""Running the service: status, diagnostics, jobs, retention, integrity checks, metrics and logs."""
