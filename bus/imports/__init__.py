"""Imports: moving the data of other coordination services into this one."""
