"""The coordination engine of LLM Bus: the only place that decides the rules of the product."""

__version__ = "0.1.0"
