"""The coordination engine of LLM Bus: the only place where a rule of the bus is decided."""

__version__ = "0.1.0"
