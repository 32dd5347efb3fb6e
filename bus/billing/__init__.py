"""Prepaid credits: accounts, prices, metering and usage."""
