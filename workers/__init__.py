"""Time-driven jobs: Celery workers and a scheduler that call functions of the engine."""
