"""The jobs. A function under `@job` in a module of this package is all that a new job needs."""

import importlib
import pkgutil

from workers.job_runner import Job, registered_jobs


def all_jobs() -> dict[str, Job]:
    """Import every module of this package and return its jobs by name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return registered_jobs()
