"""The pages, one file per noun: its routes in a blueprint called `pages`."""
