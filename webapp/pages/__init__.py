"""The pages, one module per noun: its routes, in a module variable called `blueprint`."""
