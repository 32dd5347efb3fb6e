"""The clock's door: Celery workers that do what happens with time, each job a function of the engine."""
